# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots on an Intel machine with KVM in use: an INIT does nothing to a CPU in VMX operation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from intel import (
    ADOPT,
    CPUS,
    NEW_CPUS,
    OLD_CPUS,
    STEP_S,
    MachineEndedError,
    Root,
    StillRunsError,
    check_silent,
    launch,
    pulses,
)
from vmx_machines import Machines

from multiroot.units import format_cpu_list

# Of a busy workstation's clock; the limits that matter are the emulator's (see intel.py).
pytestmark = pytest.mark.timeout(3600)

BLOCKED = pytest.mark.xfail(
    strict=True,
    raises=StillRunsError,
    reason="INIT is blocked in VMX operation, and the module takes what it has sent for done",
)
PAGING = pytest.mark.xfail(
    strict=True,
    raises=MachineEndedError,
    reason="a CPU that parks turns paging off without VMXOFF, and faults until the machine is reset",
)
ONLINE = "cat /sys/devices/system/cpu/online"
PANIC = "echo c >/proc/sysrq-trigger"
RESTART = "echo b >/proc/sysrq-trigger"
RETIRE = "busybox reboot -f"


def granted() -> str:
    return format_cpu_list(NEW_CPUS)


@pytest.fixture
def first(machines: Machines) -> Iterator[Root]:
    """The first root, with a guest that runs on each CPU."""
    with machines.lent() as root:
        root.start_vms(range(CPUS))
        yield root
        root.stop_vms()


@pytest.fixture
def pair(machines: Machines) -> Iterator[tuple[Root, Root]]:
    """The first root with a guest on each of its CPUs, and a new root with a guest on each of its own. The
    machine is used once.
    """
    with machines.lent() as old:
        old.start_vms(range(CPUS))
        new = launch(old, old.machine.com2, "--cpus", granted())
        new.start_vms(range(len(NEW_CPUS)))
        new.pulse()
        yield old, new
    machines.discard()


def check_given_back(old: Root) -> None:
    """What the new root had is the old one's and works: its CPUs run guests, a new root starts on them."""
    assert old.run(ONLINE).strip() == format_cpu_list(range(CPUS))
    old.stop_vms()
    old.start_vms(range(CPUS))
    old.check_vms(range(CPUS))
    again = launch(old, old.machine.com2, "--cpus", granted())
    again.start_vms(range(len(NEW_CPUS)))
    old.check_vms(OLD_CPUS)


def check_takes_over(new: Root) -> None:
    """The root whose parent has ended takes all CPUs, the machine's boot CPU among them, and starts the next
    generation. All of them run guests.
    """
    adopted = new.python(ADOPT)
    assert adopted.count("adopted AdoptedCpu") == len(OLD_CPUS), adopted
    assert new.run(ONLINE).strip() == format_cpu_list(range(CPUS))
    new.stop_vms()
    new.start_vms(range(CPUS))
    new.check_vms(range(CPUS))
    third = launch(new, new.machine.com1, "--cpu-count", "1", "--carve", "384M")
    third.start_vms([0])
    third.check_vms([0])
    assert new.trouble() == []


def check_no_reset(root: Root) -> None:
    assert root.machine.alive()
    root.machine.end()
    assert root.machine.resets() == []


def test_a_new_root_starts_on_cpus_that_had_guests(first: Root) -> None:
    """Proves that going offline takes a CPU out of VMX operation, with its VMs left open, so that a new root
    starts there; that KVM runs in both roots at once; and that a new root without KVM is stopped."""
    first.check_vms(range(CPUS))
    new = launch(first, first.machine.com2, "--cpus", granted())
    assert first.run(ONLINE).strip() == format_cpu_list(OLD_CPUS)
    first.check_vms(range(CPUS))
    new.pulse()
    assert pulses(first, new)
    check_silent(first, new, first.run("multiroot kexec stop", STEP_S))
    assert first.run(ONLINE).strip() == format_cpu_list(range(CPUS))
    assert first.trouble() == []


@BLOCKED
@pytest.mark.parametrize("guest", ["halt", ""], ids=["vmx-root", "guest"])
def test_a_new_root_is_stopped_whose_cpus_are_in_vmx_operation(first: Root, guest: str) -> None:
    """Proves that `kexec stop` ends a root whose CPUs take no INIT, because they are in the kernel beside
    open VMs or in a guest: when it says so, none of them runs, and the old root works with all of them."""
    new = launch(first, first.machine.com2, "--cpus", granted())
    new.start_vms(range(len(NEW_CPUS)), guest)
    new.pulse()
    assert pulses(first, new)
    code, said = first.ask("multiroot kexec stop", STEP_S)
    check_silent(first, new, said)
    assert code == 0, said
    check_given_back(first)
    check_no_reset(first)


@PAGING
@pytest.mark.parametrize("end", [PANIC, RESTART], ids=["panic", "sysrq-b"])
def test_a_new_root_with_guests_ends_alone(pair: tuple[Root, Root], end: str) -> None:
    """Proves that a panic or restart of the new root parks CPUs that are in VMX operation: the old root's
    guests go on, it gets the CPUs and the memory back, and they serve another new root."""
    old, new = pair
    new.begin(end)
    old.run('until [ "$(multiroot kexec status --json | grep -c parked)" = 1 ]; do sleep 0.2; done', STEP_S)
    check_silent(old, new, "it is parked by its control page")
    old.check_vms(OLD_CPUS)
    old.run("multiroot kexec stop", STEP_S)
    check_given_back(old)
    check_no_reset(old)


@pytest.mark.parametrize(
    "end",
    [RETIRE, pytest.param(PANIC, marks=PAGING), pytest.param(RESTART, marks=PAGING)],
    ids=["retire", "panic", "sysrq-b"],
)
def test_an_old_root_with_guests_ends_alone(pair: tuple[Root, Root], end: str) -> None:
    """Proves that a reboot, panic or restart of the old root parks all its CPUs, the machine's boot CPU too:
    the new root's guests go on, and it takes over and starts the next generation."""
    old, new = pair
    old.begin(end)
    new.check_vms(range(len(NEW_CPUS)))
    check_takes_over(new)
    check_no_reset(new)
