# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges a trace by the rows: who did what with which piece of state, and was it allowed. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from multiroot.audit.apic import Delivery, Message
from multiroot.audit.owners import Owners
from multiroot.audit.rows import FIRST_MEMORY, Allow, Owner, Phase, Role, Row, Rows, lookup_at, lookup_msr
from multiroot.audit.trace import DEVICE, Access, MsrWrite

NOBODY = "nobody"  # a CPU between two roots
DEVICES = "devices"

# A root may be ended by the one that started it: that is what releasing it is.
_ENDS = frozenset({Delivery.INIT, Delivery.STARTUP})


@dataclass(frozen=True)
class Violation:
    """Something a row forbids, how often it was seen, and the value of the first time."""

    row: str
    phase: Phase
    who: str
    what: str
    count: int
    value: int


@dataclass(frozen=True)
class Seen:
    """How often `who` read and wrote a row's state in a phase."""

    row: str
    phase: Phase
    who: str
    reads: int
    writes: int


@dataclass(frozen=True)
class Doorbell:
    """Where a root takes interrupts of the other one."""

    role: Role
    apic_id: int
    vector: int


@dataclass
class _Selected:
    value: int
    who: str


@dataclass
class Judge:
    """Feed it a trace in order; `enter` says which phase comes.

    Interrupts to the other root are judged at the end, when its doorbell is known.
    """

    rows: Rows
    owners: Owners
    phase: Phase = Phase.LAUNCH
    accesses: int = 0
    msr_writes: Counter[Role] = field(default_factory=Counter)
    _counts: Counter[tuple[str, Phase, str, bool]] = field(default_factory=Counter)
    _bad: dict[tuple[str, Phase, str, str], tuple[int, int]] = field(default_factory=dict)
    _crossed: Counter[tuple[Phase, Role, int, int]] = field(default_factory=Counter)
    _selected: dict[int, _Selected] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._at, self._msr = lookup_at(self.rows), lookup_msr(self.rows)
        self._by_selector = {row.selector: row for row in self.rows.row if row.selector is not None}

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        if phase is Phase.AFTER:
            self.owners.end_old_root()

    def begin(self) -> None:
        """A trace begins: which registers were chosen before is unknown."""
        self.owners.begin()
        self._selected.clear()

    def take(self, access: Access) -> None:
        """One line of QEMU's trace."""
        self.accesses += 1
        self.owners.wake(access)
        role = self.owners.of(access.cpu)
        who = DEVICES if access.cpu == DEVICE else role.value if role else NOBODY
        row = self._at(access.at)
        if row is None:
            raise KeyError(f"no row for {access.at:#x}")
        if row.takes_over and role is Role.NEW and self.phase is Phase.RETIRE:
            self.enter(Phase.AFTER)
        self._counts[row.id, self.phase, who, access.write] += 1
        message = self.owners.message(access)
        if message and row.rule == "msi":
            self._judge_device_interrupt(row, message, access.value)
        elif who != DEVICES:
            self._judge(row, access, role, who)
            if message and row.rule == "ipi":
                self._judge_ipi(row, message, role, who, access.value)
        if access.write and access.at in self._by_selector:
            self._selected[access.at] = _Selected(access.value, who)
        self.owners.follow(access, message)

    def take_msr(self, role: Role, phase: Phase, write: MsrWrite) -> None:
        """A write that a root's own kernel traced. MSRs in no row are the CPU's own."""
        self.msr_writes[role] += 1
        row = self._msr(write.msr)
        if row is None:
            return
        self._counts[row.id, phase, role.value, True] += 1
        if not _owns(row, role, phase):
            self._accuse(row, phase, role.value, f"wrote MSR {write.msr:#x}", write.value)

    def differ(self, row: Row, what: str) -> None:
        """A comparison of the roots' state came out badly."""
        self._accuse(row, self.phase, "both", what, 0)

    def seen(self) -> list[Seen]:
        keys = dict.fromkeys((row, phase, who) for row, phase, who, _ in self._counts)
        return [
            Seen(*key, self._counts[(*key, False)], self._counts[(*key, True)])
            for key in sorted(keys, key=lambda key: (key[0], list(Phase).index(key[1]), key[2]))
        ]

    def rings(self, doorbells: tuple[Doorbell, ...]) -> int:
        """Interrupts that went to the other root's doorbell."""
        bells = {(bell.role, bell.apic_id, bell.vector) for bell in doorbells}
        return sum(count for (_, *bell), count in self._crossed.items() if tuple(bell) in bells)

    def violations(self, doorbells: tuple[Doorbell, ...]) -> list[Violation]:
        """All of them; `doorbells` are the only interrupts that may go from one root to the other."""
        bells = {(bell.role, bell.apic_id, bell.vector) for bell in doorbells}
        found = [Violation(*key, count, value) for key, (count, value) in self._bad.items()]
        for (phase, target, cpu, vector), count in self._crossed.items():
            if (target, cpu, vector) not in bells:
                row = next(row for row in self.rows.row if row.rule == "ipi")
                what = f"sent vector {vector:#x} to APIC id {cpu} of the {target} root, which is no doorbell"
                found.append(Violation(row.id, phase, _other(target).value, what, count, vector))
        return found

    def _judge(self, row: Row, access: Access, role: Role | None, who: str) -> None:
        if role is None:
            self._accuse(row, self.phase, NOBODY, f"CPU {access.cpu} {_did(access)}", access.value)
            return
        selected = self._selection(row, access)
        if selected and selected.who not in (who, DEVICES):
            what = f"{_did(access)} by an index that {selected.who} had set"
            self._accuse(row, self.phase, who, what, access.value)
        elif not _owns(row, role, self.phase) and not any(
            self._allows(allow, access, role, selected) for allow in row.allow
        ):
            index = f" (index {selected.value:#x})" if selected else ""
            self._accuse(row, self.phase, who, _did(access) + index, access.value)

    def _allows(self, allow: Allow, access: Access, role: Role, selected: _Selected | None) -> bool:
        return (
            allow.root == role
            and self.phase in allow.phases
            and access.at in allow.at
            and ("w" if access.write else "r") in allow.access
            and (allow.value is None or not access.write or allow.value.matches(access.value))
            and (allow.select is None or (selected is not None and selected.value in allow.select))
        )

    def _selection(self, row: Row, access: Access) -> _Selected | None:
        if row.selector is None or row.data is None or access.at not in row.data:
            return None
        return self._selected.get(row.selector)

    def _judge_device_interrupt(self, row: Row, message: Message, value: int) -> None:
        for cpu in message.targets:
            role = self.owners.of(cpu)
            if role and not _owns(row, role, self.phase):
                what = f"vector {message.vector:#x} of a device reached APIC id {cpu} of the {role} root"
                self._accuse(row, self.phase, DEVICES, what, value)

    def _judge_ipi(self, row: Row, message: Message, role: Role | None, who: str, value: int) -> None:
        for cpu in message.targets:
            target = self.owners.of(cpu)
            if role is None or target in (role, None):
                continue
            if message.delivery is Delivery.FIXED:
                self._crossed[self.phase, target, cpu, message.vector] += 1
            elif not (role is Role.OLD and message.delivery in _ENDS):
                what = f"sent {message.delivery.name} to APIC id {cpu} of the {target} root"
                self._accuse(row, self.phase, who, what, value)

    def _accuse(self, row: Row, phase: Phase, who: str, what: str, value: int) -> None:
        count, first = self._bad.get((row.id, phase, who, what), (0, value))
        self._bad[row.id, phase, who, what] = (count + 1, first)


def _owns(row: Row, role: Role, phase: Phase) -> bool:
    """Whether `role` may do with the row as it likes. A root that has retired owns nothing."""
    if role is Role.OLD and phase is Phase.AFTER:
        return False
    return row.owner[phase] is Owner.EACH or row.owner[phase].value == role.value


def _other(role: Role) -> Role:
    return Role.NEW if role is Role.OLD else Role.OLD


def _did(access: Access) -> str:
    what = "port" if access.at < FIRST_MEMORY else "address"
    return f"{'wrote' if access.write else 'read'} {what} {access.at:#x} ({access.region})"
