# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kernel of the lab boots to a root that has what it should and takes commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lab_factory import Labs

from multiroot.errors import BadRequestError, ConflictError, PeerLostError
from multiroot.lab import boot, recipes
from multiroot.lab.lab import Lab
from multiroot.lab.layout import Range, low_reserved
from multiroot.lab.recorder import console_text
from multiroot.units import GIB

KERNELS = [kernel.name for kernel in recipes.kernels().kernel if not kernel.on_demand]
EACH = KERNELS


def read(lab: Lab, path: str) -> str:
    result = lab.run(["cat", path])
    assert result.returncode == 0, result.stderr
    return result.stdout


def iomem(lab: Lab) -> dict[str, list[Range]]:
    """Physical ranges of the old root by name, of every level."""
    found: dict[str, list[Range]] = {}
    for start, end, name in re.findall(r"([0-9a-f]+)-([0-9a-f]+) : (.*)", read(lab, "/proc/iomem")):
        found.setdefault(name, []).append(Range(int(start, 16), int(end, 16) - int(start, 16) + 1))
    return found


@pytest.fixture
def each_lab(each_kernel: str, labs_factory: Labs) -> Lab:
    """The usual machine with each kernel in turn."""
    return labs_factory.get(kernel=each_kernel)


def test_the_kernel_is_the_one_asked_for(each_lab: Lab) -> None:
    machine = each_lab.state.machine
    assert each_lab.run(["uname", "-r"]).stdout.strip() == machine.release
    assert machine.release.startswith(machine.kernel.removesuffix(".x") + ".")


@pytest.mark.parametrize("code", [0, 3])
def test_commands_return_output_and_exit_code(each_lab: Lab, code: int) -> None:
    result = each_lab.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    assert (result.returncode, result.stdout, result.stderr) == (code, "out\n", "err\n")


def test_a_signal_is_128_and_its_number(each_lab: Lab) -> None:
    assert each_lab.run(["sh", "-c", "kill -9 $$"]).returncode == 128 + 9


def test_the_image_is_on_persistent_memory_where_it_was_laid_out(each_lab: Lab) -> None:
    mounts = [line.split() for line in read(each_lab, "/proc/mounts").splitlines()]
    by_target = {target: (device, kind) for device, target, kind, *_ in mounts}
    device, kind = by_target["/run/image"]
    assert (kind, by_target["/"][1]) == ("erofs", "overlay")
    assert re.fullmatch(r"/dev/pmem\d+", device)
    assert each_lab.state.machine.layout.image in iomem(each_lab)["Persistent Memory"]


def test_memory_is_as_laid_out(each_lab: Lab) -> None:
    layout = each_lab.state.machine.layout
    ranges = iomem(each_lab)
    assert layout.arena in ranges["Persistent Memory (legacy)"]
    assert layout.carve in [each for each in ranges["Reserved"] if each.start == layout.carve.start]
    assert low_reserved() in ranges["Reserved"]


def test_the_arena_is_a_dax_device_of_nearly_its_size(each_lab: Lab) -> None:
    devices = each_lab.run(["sh", "-c", "ls -d /sys/bus/dax/devices/dax*"]).stdout.split()
    assert len(devices) == 1
    size = int(read(each_lab, f"{devices[0]}/size"))
    assert 0 < each_lab.state.machine.layout.arena.size - size <= 4 << 20
    assert each_lab.run(["test", "-c", f"/dev/{Path(devices[0]).name}"]).returncode == 0


def test_kvm_and_our_module_are_there(each_lab: Lab) -> None:
    assert each_lab.run(["test", "-c", "/dev/kvm"]).returncode == 0
    assert "multiroot " in read(each_lab, "/proc/modules")


def test_the_image_has_every_kernel_and_the_guest(each_lab: Lab) -> None:
    for name in KERNELS:
        folder = f"/usr/lib/multiroot/kernels/{name}"
        assert (
            each_lab.run(["test", "-s", f"{folder}/vmlinuz", "-a", "-s", f"{folder}/initrd"]).returncode == 0
        )
        release = read(each_lab, f"{folder}/release").strip()
        assert "CONFIG_X86_64=y" in read(each_lab, f"{folder}/config")
        assert each_lab.run(["modinfo", "-k", release, "multiroot"]).returncode == 0
    guest = "/usr/lib/multiroot/guests/ticker"
    assert each_lab.run(["test", "-s", f"{guest}/vmlinuz", "-a", "-s", f"{guest}/initrd"]).returncode == 0


def test_our_package_is_compiled_for_the_roots_python(each_lab: Lab) -> None:
    script = (
        "import pathlib, multiroot.arena.atomics, multiroot.units as units; "
        "print(pathlib.Path(units.__spec__.cached).read_bytes()[4])"
    )
    result = each_lab.run(["python3", "-c", script])
    # Flags of PEP 552: 1 is "by hash, not checked against the source".
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_the_agents_dataclasses_are_compiled_ahead(each_lab: Lab) -> None:
    """Without that an agent starts all the same, and takes longer."""
    script = """
import builtins
from multiroot import ahead
ahead.use()
usual = builtins.compile
def refuse(text, name, mode, *args, **options):
    assert (name, mode) != ("<string>", "exec"), text  # forward references are compiled to be evaluated
    return usual(text, name, mode, *args, **options)
builtins.compile = refuse
import multiroot.agent.daemon, multiroot.agent.parts, dataclasses
print(ahead.FILE.exists(), "exec" in vars(dataclasses))
"""
    result = each_lab.run(["python3", "-c", script])
    assert (result.stdout, result.stderr) == ("True True\n", "")


def test_moments_of_the_start_are_kept_in_order(each_lab: Lab) -> None:
    marks = dict(line.split() for line in read(each_lab, "/run/multiroot/marks").splitlines())
    for order in (
        ["initramfs", "mounted", "init", "kvm", "link", "devices"],
        ["kvm", "exec"],
        ["kvm", "agent-started"],
    ):
        times = [float(marks[name]) for name in order]
        assert times == sorted(times)


def test_the_console_is_logged_with_stamps_and_nothing_was_reset(each_lab: Lab) -> None:
    log = console_text(each_lab.state.folder, "old").split("\n")[:-1]
    stamps = [int(line.split(" ", 1)[0]) for line in log]
    assert stamps == sorted(stamps)
    assert any("Linux version" in line for line in log)
    assert each_lab.state.resets() == 0


def test_a_second_start_under_the_same_name_is_refused(lab: Lab, labs_factory: Labs) -> None:
    with pytest.raises(ConflictError, match="is running already"):
        boot.up(lab.state.machine, "digest", labs_factory.phases)
    assert lab.run(["true"]).returncode == 0


def test_roots_that_are_not_there(lab: Lab) -> None:
    with pytest.raises(BadRequestError, match="no root called 'middle'"):
        lab.run(["true"], root="middle")
    with pytest.raises(PeerLostError, match=r"no exec service at 10\.77\.0\.9"):
        lab.run(["true"], root="9")


def test_without_a_reserved_carve_its_blocks_can_be_taken_offline(labs_factory: Labs) -> None:
    lab = labs_factory.get(machine="hotplug")
    carve = lab.state.machine.layout.carve
    size = int(read(lab, "/sys/devices/system/memory/block_size_bytes"), 16)
    blocks = range(carve.start // size, carve.end // size)
    assert carve.start % size == carve.size % size == 0
    assert carve.size == GIB
    states = [f"/sys/devices/system/memory/memory{block}/state" for block in blocks]
    for state in states:
        result = lab.run(["sh", "-c", f"echo offline >{state}"])
        assert result.returncode == 0, f"{state}: {result.stderr}"
    assert {read(lab, state).strip() for state in states} == {"offline"}
    labs_factory.discard(lab)


def test_a_reset_ends_the_machine_and_is_counted(labs_factory: Labs) -> None:
    lab = labs_factory.fresh()
    lab.run(["sh", "-c", "(sleep 1; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &"])
    boot.wait_end(lab.state, timeout=60)
    assert lab.state.resets() == 1
    assert lab.state.events()[-1]["event"] == "EXIT"
