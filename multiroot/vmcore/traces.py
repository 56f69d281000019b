# SPDX-License-Identifier: GPL-2.0-or-later
"""What the CPUs of a root were doing, read from its memory: for a root that has crashed or hangs.

This needs no debug information and no vmlinux. Names come from the kernel's own table of symbols, and what
runs on a CPU from its BTF. A trace is made of what lies on the stack, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multiroot.vmcore import btf, kallsyms, target
from multiroot.vmcore.core_file import Note
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.kallsyms import Symbols
from multiroot.vmcore.space import Space, UnmappedError, text, word
from multiroot.vmcore.target import Place

_COMM = 16  # TASK_COMM_LEN
_PANIC = ("panic", "vpanic", "crash_kexec", "__crash_kexec")


@dataclass(frozen=True)
class CpuTrace:
    """One CPU. `parked`: the end of its stack is known, for it has left it there; else all of the stack of
    its task is shown. `pid` is -1 where that cannot be told. `error` says why there are no places.
    """

    cpu: int
    parked: bool
    pid: int
    comm: str
    places: tuple[tuple[Place, str], ...] = ()
    error: str = ""

    def lines(self) -> list[str]:
        """As kernels print them: "? " is before what may be left over from calls that have returned."""
        task = f"{self.comm} (pid {self.pid})" if self.pid >= 0 else "a task that is not known"
        how = "" if self.parked else ", all of its stack"
        head = f"CPU {self.cpu}: {task}{how}"
        if self.error:
            return [f"{head}: {self.error}"]
        return [head, *(f"  {'' if place.sure else '? '}{name}" for place, name in self.places)]


def of_all(space: Space, info: VmcoreInfo, parked: Mapping[int, int]) -> list[CpuTrace]:
    """A trace of each CPU; `parked` has where the stacks end of those that our module has parked.

    Raises UnmappedError where the kernel's own symbols cannot be read.
    """
    symbols = kallsyms.read(space, info)
    stacks = target.stacks(space, info, symbols)
    members = _members(space, symbols)
    return [
        _one(space, symbols, stacks, members, cpu, parked.get(cpu))
        for cpu in sorted({*stacks.cpus(), *parked})
    ]


def _one(
    space: Space,
    symbols: Symbols,
    stacks: target.Stacks,
    members: Mapping[str, int],
    cpu: int,
    parked_at: int | None,
) -> CpuTrace:
    pid, comm = _task(space, symbols, members, cpu)
    try:
        found = stacks.trace(stacks.of_task(cpu) if parked_at is None else parked_at)
    except UnmappedError as error:
        return CpuTrace(cpu, parked_at is not None, pid, comm, error=str(error))
    named = [(place, symbols.at(place.address) or f"{place.address:#x}") for place in found]
    return CpuTrace(cpu, parked_at is not None, pid, comm, tuple(_from_panic(named)))


def registers(found: Iterable[CpuTrace]) -> list[Note]:
    """A note for each CPU that was parked, with what is known of its registers: enough to begin a trace with
    debug information. They are those of a panic, or else of the innermost place that is sure: what our module
    has done behind it says nothing.
    """
    notes = []
    for each in found:
        if each.parked and each.places:
            place, name = each.places[0]
            if name.partition("+")[0] not in _PANIC:
                place = next((other for other, _ in each.places if other.sure), place)
            notes.append(target.registers_note(max(each.pid, 0), place))
    return notes


def _from_panic(named: list[tuple[Place, str]]) -> list[tuple[Place, str]]:
    """What is below a panic was on the stack before it, or is how the root was ended: of no interest."""
    for number, (_, name) in enumerate(named):
        if name.partition("+")[0] in _PANIC:
            return named[number:]
    return named


def _members(space: Space, symbols: Symbols) -> dict[str, int]:
    """Of struct task_struct; empty for a kernel without BTF."""
    start = symbols.by_name.get("__start_BTF")
    if start is None:
        return {}
    try:
        size = btf.size_of(space.read(start, 32))
        return btf.offsets(space.read(start, size), "task_struct") if size else {}
    except UnmappedError:
        return {}


def _task(space: Space, symbols: Symbols, members: Mapping[str, int], cpu: int) -> tuple[int, str]:
    if "pid" not in members or "comm" not in members:
        return -1, ""
    try:
        task = target.current_task(space, symbols, cpu)
        pid = word(space, task + members["pid"]) & 0x7FFF_FFFF
        return pid, text(space, task + members["comm"], _COMM)
    except UnmappedError:
        return -1, ""


def lines(traces: Iterable[CpuTrace]) -> list[str]:
    """All of them, to be shown."""
    return [line for trace in traces for line in trace.lines()]
