# SPDX-License-Identifier: GPL-2.0-or-later
"""multiroot.ko in real kernels: it loads, refuses bad input, and works after that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kernel_trouble import trouble
from lab_factory import Labs

from multiroot.lab import recipes
from multiroot.lab.lab import Lab
from multiroot.units import parse_cpu_list

FUZZ = Path(__file__).parent / "guest/fuzz_ioctl.py"
FUZZ_ROUNDS, SEED, FUZZ_S = 4000, "20261124", 300.0
STALLED = Path(__file__).parent / "guest/stalled_memory.py"
LOCK = Path(__file__).parent / "guest/lock_down.py"
# A started root changes by these, and none of them may be had without the coordinator's claim.
CHANGING = (
    "CARVE",
    "UNCARVE",
    "WRITE",
    "CPU_GRANT",
    "CPU_START",
    "CPU_RECLAIM",
    "INHERIT",
    "CPU_ADOPT",
    "MEMORY",
    "PCI_ADOPT",
)
SELF_TEST = "multiroot: self-test"  # what a failed one begins with


# The oldest and the newest every time, those between them in the long tests.
KERNELS = [kernel.name for kernel in recipes.kernels().kernel]
BETWEEN = {"6.12", "6.12-full"}
EACH = [pytest.param(name, marks=[pytest.mark.long] if name in BETWEEN else []) for name in KERNELS]


@pytest.fixture
def each_lab(each_kernel: str, labs_factory: Labs) -> Lab:
    return labs_factory.get(kernel=each_kernel)


OPEN = "import os; os.close(os.open('/dev/multiroot', os.O_RDWR))"


def kernel_log(lab: Lab) -> str:
    return lab.run(["dmesg"]).stdout


def failed_self_tests(log: str) -> list[str]:
    return [line for line in log.splitlines() if SELF_TEST in line]


def test_the_module_is_up_and_its_self_tests_passed(each_lab: Lab) -> None:
    log = kernel_log(each_lab)
    assert "multiroot: root 1 is up" in log
    assert failed_self_tests(log) == []
    assert trouble(each_lab) == []


def test_bad_input_is_refused_and_good_input_works_afterwards(each_lab: Lab) -> None:
    machine = each_lab.state.machine
    carve = machine.layout.carve
    present = parse_cpu_list(each_lab.run(["cat", "/sys/devices/system/cpu/present"]).stdout.strip())
    rounds = round(FUZZ_ROUNDS / machine.slowness)
    numbers = [hex(carve.start), hex(carve.size), str(max(present)), SEED, str(rounds)]
    result = each_lab.run(["python3", "-c", FUZZ.read_text(), *numbers], timeout=FUZZ_S * machine.slowness)
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout)
    assert answers["unexpected"] == []
    assert answers["wrong"] == []
    for name in CHANGING:
        assert set(answers["unclaimed"][name]) <= {"EPERM", "EFAULT"}, name
        assert "EPERM" not in answers["claimed"][name] or name == "CPU_GRANT", name
    assert "ok" in answers["claimed"]["CARVE"]
    assert set(answers["claimed"]["CPU_START"]) <= {"EINVAL", "EBUSY", "EFAULT", "ENOENT"}
    assert set(answers["claimed"]["unknown"]) == {"ENOTTY"}
    assert trouble(each_lab) == []


def test_user_memory_that_does_not_answer_keeps_no_other_ioctl_waiting(each_lab: Lab) -> None:
    """Proves that no lock is held while READ and WRITE wait for a page of user memory: INFO is answered and
    the carve goes meanwhile. What was read is handed out then, and nothing is written any more."""
    carve = each_lab.state.machine.layout.carve
    done = each_lab.run(["python3", "-c", STALLED.read_text(), hex(carve.start), hex(carve.size)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done", "EINVAL"]
    assert trouble(each_lab) == []


# Another program stands where the agent is started, so that nobody has the device open.
WITHOUT_AGENT = """
printf '#!/bin/sh\\nexec sleep 9999\\n' >/run/nobody && chmod +x /run/nobody
mount --bind /run/nobody /usr/lib/multiroot/agent
pkill -9 -f '[/]usr/bin/multirootd'
until rmmod multiroot; do :; done
until pgrep -x sleep; do :; done
"""
WITH_AGENT = "umount /usr/lib/multiroot/agent && pkill -x sleep"
FTRACE = "/proc/sys/kernel/ftrace_enabled"
STAYS_ON = "The ftrace_enabled file is deprecated and no longer disables ftrace"  # says Linux 7.3


def test_where_probes_would_never_be_hit_the_module_does_not_begin(each_lab: Lab) -> None:
    """Proves that the module is refused in a line while ftrace is off, as doctor says before; that it begins
    when ftrace is on, which nobody turns off until the module has gone. A kernel that has it on for ever says
    so."""

    def shell(line: str) -> int:
        return each_lab.run(["sh", "-c", line]).returncode

    if shell(f"test -e {FTRACE}"):
        pytest.skip("this kernel has no ftrace: its probes are breakpoints, which nothing turns off so")
    assert shell(WITHOUT_AGENT) == 0
    if shell(f"echo 0 >{FTRACE}"):
        assert STAYS_ON in kernel_log(each_lab)
        assert shell("modprobe multiroot") == 0
    else:
        checks = json.loads(each_lab.run(["multiroot", "doctor", "--json"]).stdout)["checks"]
        mends = [each["mend"] for each in checks if each["id"] == "kernel"]
        assert mends == ["sysctl kernel.ftrace_enabled=1"]
        assert shell("modprobe multiroot") != 0
        assert "multiroot: ftrace is off" in kernel_log(each_lab)
        assert shell(f"echo 1 >{FTRACE} && modprobe multiroot") == 0
        assert shell(f"echo 0 >{FTRACE}") != 0
        assert shell(f"rmmod multiroot && echo 0 >{FTRACE} && echo 1 >{FTRACE} && modprobe multiroot") == 0
    assert shell(WITH_AGENT) == 0
    assert trouble(each_lab) == []


def test_the_device_is_for_who_may_kexec_and_not_in_a_locked_down_kernel(
    each_lab: Lab, labs_factory: Labs
) -> None:
    """Without CAP_SYS_BOOT it does not open. Nor under lockdown, and then an open one loads nothing."""
    python = ["python3", "-c"]
    assert each_lab.run(["stat", "-c", "%a", "/dev/multiroot"]).stdout == "600\n"
    assert each_lab.run([*python, OPEN]).returncode == 0
    unable = each_lab.run(["setpriv", "--bounding-set=-sys_boot", *python, OPEN])
    assert "PermissionError" in unable.stderr

    carve = each_lab.state.machine.layout.carve
    done = each_lab.run([*python, LOCK.read_text(), hex(carve.start), hex(carve.size)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["written", "refused", "uncarved"]
    locked = each_lab.run([*python, OPEN])
    assert "PermissionError" in locked.stderr
    labs_factory.discard(each_lab)  # there is no way back
