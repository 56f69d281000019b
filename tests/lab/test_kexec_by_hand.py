# SPDX-License-Identifier: GPL-2.0-or-later
"""A second kernel loaded, started and stopped with `multiroot kexec`."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from lab_factory import Labs

from multiroot.errors import PeerLostError
from multiroot.lab.lab import Lab, kernel_name
from multiroot.lab.machine import QMP_SOCKET
from multiroot.lab.recorder import console_text
from multiroot.plan.iomem import parse
from multiroot.ranges import Range
from multiroot.units import MIB
from multiroot.vm.qemu.monitor import Monitor

COMES_UP_S = 90.0


def kexec(lab: Lab, *words: str, code: int = 0) -> str:
    """Run `multiroot kexec`; its output, or the one line on stderr when it is to fail."""
    result = lab.run(["multiroot", "kexec", *words])
    assert result.returncode == code, result.stdout + result.stderr
    return result.stderr if code else result.stdout


def kexec_json(lab: Lab, *words: str) -> Any:
    return json.loads(kexec(lab, *words, "--json"))


def shell(lab: Lab, line: str, root: str = "old") -> str:
    """What a command line prints; `root` may be a number, for each start makes a root with a new one."""
    result = lab.run(["sh", "-c", line], root=root)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def standing(lab: Lab) -> tuple[str, str, str]:
    """What a load takes and a stop must give back: CPUs, offline memory blocks, the registered carve."""
    return (
        shell(lab, "cat /sys/devices/system/cpu/online"),
        shell(lab, "grep -lx offline /sys/devices/system/memory/memory*/state || true"),
        shell(lab, "ls /run/multiroot/loaded.json 2>/dev/null || true"),
    )


def launches_so_far(lab: Lab) -> int:
    """How often a new root has said on its console that it takes commands."""
    return console_text(lab.state.folder, "new").count("multiroot: mark exec")


def comes_up_s(lab: Lab) -> float:
    return COMES_UP_S * lab.state.machine.slowness


def start(lab: Lab) -> str:
    """Start what is loaded; returns the new root's number when it takes commands over the link."""
    before = launches_so_far(lab)
    deadline = time.monotonic() + comes_up_s(lab)
    started = kexec_json(lab, "start")
    assert started["entry_ms"] > 0
    root = str(started["root"])
    while launches_so_far(lab) == before or not answers(lab, root):
        assert time.monotonic() < deadline, f"the new root did not come up, see {lab.state.folder}"
        time.sleep(0.5)
    return root


def answers(lab: Lab, root: str) -> bool:
    try:
        return lab.run(["true"], root=root).returncode == 0
    except PeerLostError:
        return False


@dataclass(frozen=True)
class Running:
    """A lab whose old root runs beside the root `new`, loaded from kernel `kernel`."""

    lab: Lab
    new: str
    kernel: str

    def there(self, line: str) -> str:
        """What a command line prints in the new root."""
        return shell(self.lab, line, self.new)


@pytest.fixture(scope="session", params=["6.1-6.12", pytest.param("6.12-7.x", marks=pytest.mark.long)])
def pair(request: pytest.FixtureRequest, labs_factory: Labs) -> tuple[str, str]:
    """Old and new kernel; of session scope, so that pytest boots each old one once."""
    old, _, new = request.param.partition("-")
    return labs_factory.kernel(old), labs_factory.kernel(new)


@pytest.fixture
def usual(labs_factory: Labs) -> str:
    """What the new root's kernel is called, of a test in one lab."""
    return kernel_name(labs_factory.kernel("6.12"))


@pytest.fixture
def running(pair: tuple[str, str], labs_factory: Labs) -> Iterator[Running]:
    """The pair's new kernel running beside its old one; stopped afterwards."""
    lab = labs_factory.get(kernel=pair[0])
    new = kernel_name(pair[1])
    kexec(lab, "load", new, "--cpus", "2-3")
    yield Running(lab, start(lab), new)
    if lab.run(["multiroot", "kexec", "stop"]).returncode:
        labs_factory.discard(lab)


def test_two_kernels_run_and_keep_to_themselves(running: Running) -> None:
    lab = running.lab
    status = kexec_json(lab, "status")
    loaded, plan = status["loaded"], status["loaded"]["plan"]
    assert status["state"] in ("attached", "ready")
    assert running.there("uname -r") == loaded["release"]
    # Which of two kernels of one release it is, stands behind the release.
    assert loaded["release"].startswith(running.kernel.partition("-")[0].removesuffix("x"))
    assert running.there("cat /proc/cmdline") == loaded["command_line"]
    assert running.there("nproc") == "2"
    assert shell(lab, "cat /sys/devices/system/cpu/online") == "0-1"

    tree = parse(running.there("cat /proc/iomem"))
    own = [Range(**plan[part]) for part in ("carve", "low")]
    ram = [item.range for item in tree if item.is_ram]
    assert ram
    assert all(any(part.contains(item) for part in own) for item in ram)
    assert [item.range for item in tree if item.is_persistent] == [Range(**item) for item in plan["pmem"]]
    assert running.there("ls /sys/bus/pci/devices 2>/dev/null | wc -l") == "0"

    vetoed = lab.run(["sh", "-c", "echo 1 > /sys/devices/system/cpu/cpu2/online"])
    assert vetoed.returncode != 0
    refusal = kexec(lab, "load", running.kernel, "--cpus", "1", "--carve", "256M", code=3)
    assert "loaded already" in refusal or "no room" in refusal
    assert running.there("nproc") == "2"


@contextmanager
def monitor(lab: Lab) -> Iterator[Monitor]:
    """QEMU's, of the lab machine."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(lab.state.machine.state / QMP_SOCKET))
        connected = Monitor(sock)
        connected.greet()
        yield connected


def test_a_parked_cpu_survives_machine_checks_and_works_afterwards(lab: Lab, usual: str) -> None:
    """Proves that a CPU that waits in the park takes a machine check and clears MCIP: with CR4.MCE clear the
    first one, with MCIP set the second would be a triple fault, which resets the machine."""
    uncorrected, in_progress = 0xB << 60, 0x5  # MCi_STATUS: VAL, UC, EN; MCG_STATUS: RIPV, MCIP
    bank = 1  # Linux turns the first one off on CPUs of AMD's family 6, which the lab's are
    resets = lab.state.resets()
    kexec(lab, "load", usual, "--cpus", "2-3")
    with monitor(lab) as qemu:
        for _ in range(3):
            for cpu in (2, 3):
                said = qemu.human(f"mce {cpu} {bank} {uncorrected:#x} {in_progress:#x} 0 0")
                assert said == "", said
    root = start(lab)
    assert shell(lab, "nproc", root) == "2"
    kexec(lab, "stop")
    assert standing(lab) == ("0-3", "", "")
    assert shell(lab, "taskset -c 2 nproc; taskset -c 3 nproc") == "1\n1"
    assert lab.state.resets() == resets


def test_stop_gives_everything_back_and_it_can_be_started_again(lab: Lab, usual: str) -> None:
    kexec(lab, "load", usual, "--cpus", "2-3")
    first = start(lab)
    kexec(lab, "stop")
    assert standing(lab) == ("0-3", "", "")
    assert shell(lab, "taskset -c 2 nproc; taskset -c 3 nproc") == "1\n1"
    kexec(lab, "status", code=1)
    kexec(lab, "load", usual, "--cpus", "3")
    again = start(lab)
    assert again != first
    assert shell(lab, "nproc", again) == "1"
    kexec(lab, "stop")
    assert lab.state.resets() == 0


def test_a_root_that_owns_a_vm_is_stopped_by_force_only(lab: Lab, usual: str) -> None:
    """Proves that `kexec stop`, which asks no agent, goes by the owner words: it refuses and names the VM,
    and the new root goes on; by force it says that the VM is lost, and everything comes back."""
    kexec(lab, "load", usual, "--cpus", "2-3")
    new = start(lab)
    deadline = time.monotonic() + comes_up_s(lab)
    while kexec_json(lab, "status")["state"] != "ready":
        assert time.monotonic() < deadline, "the new root's agent did not come up"
    shell(lab, "multiroot vm run web --memory 128M", new)
    assert f"root {new} owns VM web" in kexec(lab, "stop", code=3)
    assert shell(lab, "nproc", new) == "2"
    assert kexec_json(lab, "stop", "--force")["lost"] == ["web"]
    assert standing(lab) == ("0-3", "", "")
    shell(lab, "multiroot vm forget web && multiroot vm rm web")
    assert json.loads(shell(lab, "multiroot arena show --json"))["extents"] == []
    assert lab.state.resets() == 0


def test_dry_run_changes_nothing(lab: Lab) -> None:
    before = standing(lab)
    text = kexec(lab, "load", "6.12", "--dry-run")
    data = kexec_json(lab, "load", "6.12", "--dry-run")
    assert standing(lab) == before
    for segment in data["segments"]:
        assert f"{segment['phys']:#014x}" in text
    assert f"multiroot.shared={data['plan']['shared']:#x}" in data["command_line"]
    assert "lpj=" in data["command_line"]


def test_unload_without_a_start(lab: Lab) -> None:
    before = standing(lab)
    kexec(lab, "load", "6.12", "--carve", "512M")
    assert kexec_json(lab, "status")["state"] == "loaded"
    assert standing(lab) != before
    kexec(lab, "stop")
    assert standing(lab) == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["load", "6.12", "--cpus", "0"], 3, "CPU 0 is the boot CPU"),
        (["load", "6.12", "--cpus", "9"], 2, "there is no CPU 9"),
        (["load", "6.12", "--carve", "512M@16M"], 3, "carve 0x1000000-0x20ffffff overlaps"),
        (["load", "6.12", "--carve", "512M@0x118001000"], 2, "not aligned"),
        (["load", "6.12", "--carve", "64M"], 2, "too small"),
        (["load", "6.12", "--carve", "1T"], 3, "no room"),
        (["load", "6.12", "--low-window", "128K@0x10000"], 3, "overlaps the ledger"),
        (["load", "/etc/passwd"], 2, "not an x86 kernel image"),
        (["load", "4.19"], 2, "there is no kernel '4.19'"),
        (["load", "6.12", "--initrd", "/nowhere"], 2, "there is no file /nowhere"),
        (["load", "6.12", "--append", "noapic"], 2, "noapic can not be used"),
        (["load", "6.12", "--append", "x" * 2000], 2, "the kernel takes 2047"),
        (["start"], 3, "no kernel is loaded"),
        (["stop"], 3, "no kernel is loaded"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    lab: Lab, words: list[str], code: int, message: str
) -> None:
    before = standing(lab)
    text = kexec(lab, *words, code=code)
    assert message in text
    assert len(text.splitlines()) == 1
    assert standing(lab) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("head -c 5000000 $K > $T", "truncated"),
        ("cp $K $T; printf x | dd of=$T bs=1 seek=9000000 conv=notrunc 2>/dev/null", "corrupt"),
        ("cp $K $T; printf '\\0' | dd of=$T bs=1 seek=564 conv=notrunc 2>/dev/null", "not relocatable"),
        ("cp $K $T; printf '\\0' | dd of=$T bs=1 seek=566 conv=notrunc 2>/dev/null", "32-bit"),
    ],
)
def test_broken_images(lab: Lab, change: str, message: str) -> None:
    shell(lab, f"K=/usr/lib/multiroot/kernels/6.12/vmlinuz T=/tmp/broken; {change}")
    assert message in kexec(lab, "load", "/tmp/broken", code=2)


def test_memory_blocks_are_taken_and_given_back(labs_factory: Labs) -> None:
    lab = labs_factory.get(kernel=labs_factory.kernel("6.12"), machine="hotplug")
    before = standing(lab)
    kexec(lab, "load", "6.12", "--carve", "256M")
    plan = kexec_json(lab, "status")["loaded"]["plan"]
    assert plan["way"] == "blocks"
    offline = re.findall(r"memory(\d+)/state", standing(lab)[1])
    assert sorted(map(int, offline)) == plan["blocks"]
    assert plan["carve"]["size"] == 256 * MIB
    vetoed = lab.run(["sh", "-c", f"echo online > /sys/devices/system/memory/memory{offline[0]}/state"])
    assert vetoed.returncode != 0
    new = start(lab)
    assert int(shell(lab, "awk '/MemTotal/ {print $2}' /proc/meminfo", new)) < 256 * 1024
    kexec(lab, "stop")
    assert standing(lab) == before
    zones = shell(lab, f"cat /sys/devices/system/memory/memory{offline[0]}/valid_zones")
    assert zones == "Movable"
