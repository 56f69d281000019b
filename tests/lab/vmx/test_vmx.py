# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots on an Intel machine with KVM in use: an INIT does nothing to a CPU in VMX operation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from intel import (
    ADOPT,
    CPUS,
    CPUS_FOR_THREE,
    HALTS,
    NEW_CPUS,
    OLD_CPUS,
    SPINS,
    STEP_S,
    Root,
    check_silent,
    kexec,
    launch,
    pulses,
)
from vmx_machines import Machines

from multiroot.units import format_cpu_list

# Of a busy workstation's clock; the limits that matter are the emulator's (see intel.py).
pytestmark = pytest.mark.timeout(3600)

ALL, ALL_FOR_THREE = range(CPUS), range(CPUS_FOR_THREE)
ALL_NEW = range(len(NEW_CPUS))
PARKED = "until multiroot kexec status --json | grep -q '\"parked\"'; do sleep 0.2; done"
PANIC = "echo c >/proc/sysrq-trigger"
RESTART = "echo b >/proc/sysrq-trigger"
RETIRE = "busybox reboot -f"


@pytest.fixture
def old(machines: Machines) -> Iterator[Root]:
    """The first root of a machine, with a VM open on each CPU. It is left with all CPUs and no other root."""
    with machines.lent() as root:
        root.start_vms(ALL)
        yield root
        root.stop_vms()


@pytest.fixture
def last_of(machines: Machines) -> Iterator[Root]:
    """The same of a machine that has room for three roots and is not used again."""
    with machines.lent(CPUS_FOR_THREE) as root:
        root.start_vms(ALL_FOR_THREE)
        yield root
    machines.discard()


def start_new(old: Root, guests: str) -> Root:
    """A new root with a VM on each of its CPUs."""
    new = launch(old, old.machine.com1, "--cpus", format_cpu_list(NEW_CPUS))
    new.start_vms(ALL_NEW, guests)
    new.pulse()
    assert pulses(old, new)
    return new


def check_given_back(old: Root) -> None:
    """All CPUs are the old root's and run guests; its kernel has nothing to complain of."""
    assert old.online() == format_cpu_list(ALL)
    old.stop_vms()
    old.start_vms(ALL)
    old.check_vms(ALL)
    assert old.trouble() == []


def check_takes_over(new: Root) -> Root:
    """The root whose parent has ended takes all CPUs, the machine's boot CPU among them, and starts the next
    generation, which is returned. All of them run guests.
    """
    new.python(ADOPT)
    assert new.online() == format_cpu_list(ALL_FOR_THREE)
    new.stop_vms()
    new.start_vms(ALL_FOR_THREE)
    new.check_vms(ALL_FOR_THREE)
    # Not later: the kernel of a root on the second serial port looks for the first one, too, its parent's.
    assert new.trouble() == []
    third = launch(new, new.machine.com2, "--cpu-count", "2", "--carve", "384M")
    third.start_vms([0])
    third.check_vms([0])
    assert third.trouble() == []
    return third


def test_a_new_root_starts_on_cpus_that_had_guests(old: Root) -> None:
    """Proves that going offline takes a CPU out of VMX operation, though its VMs stay open, so that a new
    root starts there; that KVM runs in both roots at once; and that a new root without KVM is stopped."""
    old.check_vms(ALL)
    new = launch(old, old.machine.com1, "--cpus", format_cpu_list(NEW_CPUS))
    assert old.online() == format_cpu_list(OLD_CPUS)
    new.start_vms(ALL_NEW)
    new.check_vms(ALL_NEW)
    old.check_vms(ALL)
    new.stop_vms()
    new.run("rmmod kvm_intel")
    new.pulse()
    assert pulses(old, new)
    check_silent(old, new, old.run(kexec("stop"), STEP_S))
    check_given_back(old)


@pytest.mark.parametrize(
    "guests", [pytest.param(HALTS, marks=pytest.mark.vmx_short), SPINS], ids=["vmx-root", "guest"]
)
def test_a_new_root_is_stopped_whose_cpus_are_in_vmx_operation(old: Root, guests: str) -> None:
    """Proves that `kexec stop` ends a root whose CPUs take no INIT, because they are in the kernel beside
    open VMs or in a guest: when it says so, none of them runs, and the old root works with all of them."""
    new = start_new(old, guests)
    code, said = old.ask(kexec("stop"), STEP_S)
    check_silent(old, new, said)
    assert code == 0, said
    check_given_back(old)


@pytest.mark.parametrize("end", [PANIC, RESTART], ids=["panic", "sysrq-b"])
def test_a_new_root_with_guests_ends_alone(old: Root, end: str) -> None:
    """Proves that a panic or restart of the new root parks CPUs that are in VMX operation: the old root's
    guests go on, and it gets CPUs and memory back."""
    new = start_new(old, SPINS)
    new.begin(end)
    old.run(PARKED, STEP_S)
    check_silent(old, new, "it is parked by its control page")
    old.check_vms(ALL)
    old.run(kexec("stop"), STEP_S)
    check_given_back(old)


@pytest.mark.parametrize(
    "end",
    [RETIRE, PANIC, RESTART],
    ids=["retire", "panic", "sysrq-b"],
)
def test_an_old_root_with_guests_ends_alone(last_of: Root, end: str) -> None:
    """Proves that a reboot, panic or restart of the old root parks all its CPUs, the machine's boot CPU too:
    the new root's guests go on, it takes over and starts the next generation, and nothing has reset the
    machine."""
    new = start_new(last_of, SPINS)
    last_of.begin(end)
    new.check_vms(ALL_NEW)
    check_takes_over(new)
    new.machine.end()
    assert new.machine.resets() == []
