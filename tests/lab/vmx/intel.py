# SPDX-License-Identifier: GPL-2.0-or-later
"""An Intel machine for tests: its roots, by their serial consoles, and virtual machines by the smallest VMM.

The first root has com2, its child com1, that one's child com2 again. Limits are seconds of the emulator's CPU
time (`multiroot.lab.bochs`), several times what was seen.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import NoReturn

from multiroot.errors import PeerLostError
from multiroot.lab.bochs import Bochs, Console
from multiroot.lab.vmx import FASTER
from multiroot.verdict.findings import find

# The emulated CPUs are two threads a core, and a core goes to a root as a whole. Where a new root is to start
# the next one there has to be a third core: the first CPU of neither root can leave.
CPUS, CPUS_FOR_THREE = 4, 6
OLD_CPUS, NEW_CPUS = (0, 1), (2, 3)
BOOT_S, COMMAND_S, STEP_S = 240.0, 60.0, 240.0
APPEND = " ".join(("init=/usr/lib/multiroot/bare", *FASTER))
UP = r"multiroot: mark bare [\d.]+.*?^# "
SPINNER = "/usr/lib/multiroot/spinner"
SPINS, HALTS = "", "halt"
COUNTER_AT = 0x500  # COUNTER of qemu-lab/vmx/spinner.c
PULSE = "pulse"
# In seconds of the guest kernel's clock: among so many are ten pulses.
PULSE_EVERY, LISTEN = 0.2, 2

# What an agent does when its root's parent has ended, as far as CPUs and memory go (coordinator/adoption.py).
ADOPT = """\
import time
from multiroot.device.handle import Device
from multiroot.errors import ConflictError
from multiroot.launch import adopt
device = Device()
device.claim()
def has_ended():
    try: return device.inherit()
    except ConflictError as error: print(error)
while not has_ended(): time.sleep(0.1)
for cpu in adopt.foreign_cpus(device): adopt.adopt_cpu(device, cpu)
for piece in adopt.foreign_memory(device):
    adopt.zero(device, piece, lambda seconds: None)
    adopt.add_memory(device, piece)
"""


class MachineEndedError(AssertionError):
    """The machine ended, where at most one of its roots was to end."""


class StillRunsError(AssertionError):
    """A root runs that was said to have ended."""


class Root:
    """A root with a shell on its console, which has said what is before `since` for an earlier one."""

    def __init__(self, machine: Bochs, console: Console, since: int = 0) -> None:
        self.machine = machine
        self.console = console
        self.since = since

    def wait(self, pattern: str, seconds: float = STEP_S, since: int | None = None) -> None:
        """Until its console says it, from the root's start on or from the character `since` on."""
        try:
            self.console.wait(pattern, seconds, self.since if since is None else since)
        except PeerLostError as error:
            self._ended(error)

    def ask(self, line: str, seconds: float = COMMAND_S) -> tuple[int, str]:
        """Exit code and output of a command line."""
        try:
            done = self.console.run(line, seconds)
        except PeerLostError as error:
            self._ended(error)
        return done.returncode, done.stdout

    def run(self, line: str, seconds: float = COMMAND_S) -> str:
        """Output of a command line, which must not fail."""
        code, output = self.ask(line, seconds)
        assert code == 0, f"{line}: {output}"
        return output

    def line(self, line: str, pattern: str) -> str:
        """The one line of a command's output that matches as a whole; a pulse may be among them."""
        output = self.run(line)
        found = re.search(rf"^\s*({pattern})\s*$", output, re.MULTILINE)
        assert found, f"{line}: {output}"
        return found[1]

    def online(self) -> str:
        """Its CPUs, such as 0-3."""
        return self.line("cat /sys/devices/system/cpu/online", "[0-9,-]+")

    def python(self, program: str, seconds: float = STEP_S) -> str:
        """Output of a Python program. It is typed line by line, for a terminal's lines have an end."""
        self.run("rm -f /tmp/program")
        for line in program.splitlines():
            self.run(f"echo {shlex.quote(line)} >>/tmp/program")
        return self.run("python3 /tmp/program", seconds)

    def begin(self, line: str) -> None:
        """Type what ends the shell, or the root."""
        try:
            self.console.type(line)
        except PeerLostError as error:
            self._ended(error)

    def pulse(self) -> None:
        """From now on it says something all the time."""
        self.run(f"(while sleep {PULSE_EVERY}; do echo {PULSE}; done) & true")

    def start_vms(self, cpus: Iterable[int], how: str = HALTS) -> None:
        """A virtual machine on each of these CPUs (its own numbers), and wait until its guest has run.

        `how` is SPINS, and each CPU spends its time in a guest, or HALTS: then it is in the kernel, with a
        machine open, and leaves the emulator time for others.
        """
        self.run("modprobe kvm_intel", STEP_S)
        for cpu in cpus:
            runs = f'[ "$({_counter(cpu)})" -gt 0 ]'
            self.run(f"{SPINNER} {cpu} /tmp/vm{cpu} {how} & true")
            self.run(f"until {runs}; do kill -0 $! && sleep 0.1 || break; done; {runs}")

    def counts(self, cpus: Iterable[int]) -> list[int]:
        """How far the guest on each of these CPUs has counted."""
        return [int(self.line(_counter(cpu), r"\d+")) for cpu in cpus]

    def stop_vms(self) -> None:
        self.run("busybox killall spinner; while busybox pidof spinner; do sleep 0.1; done")

    def check_vms(self, cpus: Iterable[int]) -> None:
        """All these guests count."""
        before = self.counts(cpus)
        self.run("sleep 0.5")
        after = self.counts(cpus)
        assert all(then < now for then, now in zip(before, after, strict=True)), (before, after)

    def trouble(self, seconds: float = COMMAND_S) -> list[str]:
        """What its kernel complains of. A long log takes minutes on this line, and colours would hide it."""
        return [each.headline for each in find(self.run("dmesg --color=never", seconds).splitlines(), "root")]

    def _ended(self, error: PeerLostError) -> NoReturn:
        self.machine.end()
        raise MachineEndedError(f"{error.message}: {self.machine.resets()}") from error


def _counter(cpu: int) -> str:
    return f"od -An -tu4 -j{COUNTER_AT} -N4 /tmp/vm{cpu}"


def kexec(*words: str) -> str:
    """The command line of `multiroot kexec`. It draws on a terminal, and so its output takes a detour."""
    return f"multiroot kexec {shlex.join(words)} >/tmp/said 2>&1; (code=$?; cat /tmp/said; exit $code)"


def launch(parent: Root, console: Console, *options: str) -> Root:
    """Load and start a root with these options of `kexec load`; back when it has a shell."""
    since = len(console.text())
    parent.run(kexec("load", "6.12", "--append", APPEND, *options), STEP_S)
    parent.run(kexec("start"), STEP_S)
    child = Root(parent.machine, console, since)
    child.wait(UP, BOOT_S)
    return child


def check_silent(witness: Root, other: Root, said: str) -> None:
    """Raises StillRunsError when a root that was said to have ended pulses."""
    if pulses(witness, other):
        raise StillRunsError(f"it goes on; {said}")


def pulses(witness: Root, other: Root) -> int:
    """How often a root that pulses does so while `witness` waits."""
    since = len(other.console.text())
    witness.run(f"sleep {LISTEN}")
    return other.console.text(since).count(PULSE)
