# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts: what an owner may, what others may not, and that no forbidden access goes unseen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.audit import apic, rows
from multiroot.audit.judge import Doorbell, Judge
from multiroot.audit.owners import Owners
from multiroot.audit.rows import Owner, Phase, Role, Row, Span
from multiroot.audit.trace import DEVICE, Access, MsrWrite

ROWS = rows.load()
OLD, NEW, GONE = 0, 2, 3
FIND = rows.lookup_at(ROWS)


def judge(phase: Phase = Phase.BOTH) -> Judge:
    """CPUs 0 and 1 are the old root's, 2 the new one's, 3 nobody's."""
    owners = Owners(range(4), Span(0x20000, 0x3FFFF))
    owners.role |= {NEW: Role.NEW, GONE: None}
    return Judge(ROWS, owners, phase)


def access(cpu: int, at: int, value: int = 0, *, write: bool = True) -> Access:
    return Access(cpu, write, at, value, 1, "device")


def found(one: Judge, *bells: Doorbell) -> list[tuple[str, str, str]]:
    return [(item.row, item.who, item.what) for item in one.violations(bells)]


def forbidden(row: Row, phase: Phase) -> bool:
    """Whether the new root may do nothing at all with the row in that phase."""
    theirs = row.owner[phase] in (Owner.OLD, Owner.NOBODY)
    return theirs and not any(phase in allow.phases for allow in row.allow)


PLACES = [(row, span) for row in ROWS.row for span in row.at if row.rule != "msi"]


@given(st.sampled_from(PLACES), st.sampled_from(Phase), st.data(), st.booleans())
def test_what_is_anothers_is_a_violation_wherever_it_is_touched(
    place: tuple[Row, Span], phase: Phase, data: st.DataObject, write: bool
) -> None:
    row, span = place
    at = data.draw(st.integers(span.first, span.last))
    if FIND(at) is not row or not forbidden(row, phase):
        return
    one = judge(phase)
    one.take(access(NEW, at, write=write))
    assert [(item, who) for item, who, _ in found(one)] == [(row.id, "new")]


@given(st.sampled_from(PLACES), st.sampled_from([Phase.LAUNCH, Phase.BOTH, Phase.HANDOFF]), st.booleans())
def test_the_old_root_may_use_what_it_owns(place: tuple[Row, Span], phase: Phase, write: bool) -> None:
    row, span = place
    one = judge(phase)
    one.take(access(OLD, span.first, write=write))
    if FIND(span.first) is row and row.owner[phase] in (Owner.OLD, Owner.EACH):
        assert found(one) == []


@given(st.sampled_from(PLACES), st.sampled_from(Phase))
def test_a_cpu_between_two_roots_and_a_root_that_has_gone_touch_nothing(
    place: tuple[Row, Span], phase: Phase
) -> None:
    one = judge(phase)
    one.take(access(GONE, place[1].last))
    assert [who for _, who, _ in found(one)] == ["nobody"]
    ended = judge(Phase.RETIRE)
    ended.enter(Phase.AFTER)
    ended.take(access(OLD, 0x80))
    assert [who for _, who, _ in found(ended)] == ["nobody"]


def test_the_new_root_takes_over_by_masking_the_ioapic() -> None:
    one = judge(Phase.RETIRE)
    for at, value in ((0xFEC0_0000, 0x10), (0xFEC0_0010, 0x1_0000)):
        one.take(access(NEW, at, value))
    assert one.phase is Phase.AFTER
    assert found(one) == []
    one.take(access(NEW, 0xFEC0_0010, 0x31))
    one.take(access(OLD, 0x2F8))
    assert [(row, who) for row, who, _ in found(one)] == [("ioapic", "new"), ("uart2", "nobody")]


def test_after_the_old_root_has_ended_everything_is_the_new_ones() -> None:
    one = judge(Phase.RETIRE)
    one.enter(Phase.AFTER)
    one.take(access(OLD, apic.BASE + 0xF0))
    for at in (0x70, 0x600, 0xCF9, 0xB000_0000, 0xFEBF_E000):
        one.take(access(OLD, at))
    assert found(one) == []
    one.take_msr(Role.OLD, Phase.AFTER, MsrWrite(0, 0x277, 0))
    assert [who for _, who, _ in found(one)] == ["old"]


def test_the_quick_calibration_is_allowed_once_and_on_channel_2_only() -> None:
    start = judge(Phase.LAUNCH)
    for at, value in ((0x43, 0xB0), (0x42, 0xFF), (0x61, 0x31)):
        start.take(access(NEW, at, value))
    start.take(access(NEW, 0x42, write=False))
    assert found(start) == []
    start.take(access(NEW, 0x43, 0x34))
    assert found(start) == [("pit", "new", "wrote port 0x43 (device)")]
    late = judge(Phase.BOTH)
    late.take(access(NEW, 0x43, 0xB0))
    assert [row for row, _, _ in found(late)] == ["pit"]


@pytest.mark.parametrize(
    ("index", "write", "allowed"),
    [(0x0, False, True), (0xB, False, True), (0xB, True, False), (0xF, True, True), (0x10, False, False)],
)
def test_the_clock_is_judged_by_the_register_chosen(index: int, write: bool, allowed: bool) -> None:
    one = judge(Phase.LAUNCH)
    one.take(access(NEW, 0x70, index))
    one.take(access(NEW, 0x71, write=write))
    assert (found(one) == []) is allowed


def test_an_index_set_by_the_other_root_is_a_violation_even_of_the_owner() -> None:
    one = judge(Phase.LAUNCH)
    one.take(access(NEW, 0x70, 0xF))
    one.take(access(OLD, 0x71, 0x26))
    assert found(one) == [("rtc", "old", "wrote port 0x71 (device) by an index that new had set")]


def test_vendor_ids_alone_may_be_read_by_cf8() -> None:
    one = judge(Phase.LAUNCH)
    one.take(access(NEW, 0xCF8, 0x80001000))
    one.take(access(NEW, 0xCFC, write=False))
    assert found(one) == []
    one.take(access(NEW, 0xCF8, 0x80001004))
    one.take(access(NEW, 0xCFC, 0x7))
    assert [what for _, _, what in found(one)] == [
        "wrote port 0xcf8 (device)",
        "wrote port 0xcfc (device) (index 0x80001004)",
    ]


def test_violations_are_counted_and_the_first_value_kept() -> None:
    one = judge()
    for value in (5, 6, 7):
        one.take(access(NEW, 0x40, value))
    (item,) = one.violations(())
    assert (item.count, item.value, item.phase) == (3, 5, Phase.BOTH)


@pytest.mark.parametrize(("cpu", "bad"), [(0, False), (NEW, True), (GONE, False)])
def test_device_interrupts_must_reach_the_devices_owner(cpu: int, bad: bool) -> None:
    one = judge()
    one.take(access(DEVICE, apic.BASE | cpu << 12, 0x24))
    expected = [("interrupts", "devices", f"vector 0x24 of a device reached APIC id {cpu} of the new root")]
    assert found(one) == (expected if bad else [])


def ring(one: Judge, sender: int, target: int, command: int) -> None:
    one.take(access(sender, apic.ICR_HIGH, target << 24))
    one.take(access(sender, apic.ICR_LOW, command))


def test_doorbells_cross_and_other_interrupts_do_not() -> None:
    bells = (Doorbell(Role.OLD, 0, 0x21), Doorbell(Role.NEW, NEW, 0x20))
    one = judge()
    ring(one, OLD, NEW, 0x4020)
    ring(one, NEW, OLD, 0x4021)
    ring(one, OLD, 1, 0xFD)
    assert found(one, *bells) == []
    assert one.rings(bells) == 2
    ring(one, NEW, OLD, 0xFB)
    ring(one, NEW, 1, 0x4021)
    assert [(row, who) for row, who, _ in found(one, *bells)] == [("ipi", "new"), ("ipi", "new")]


@pytest.mark.parametrize(
    ("sender", "target", "command", "bad"),
    [
        (OLD, NEW, 0xC500, False),  # the parent stops its child
        (NEW, OLD, 0xC500, True),
        (OLD, NEW, 0x400, True),
        (NEW, GONE, 0xC500, False),  # a CPU that was granted to it
        (NEW, NEW, 0x400, False),
        (NEW, OLD, 0xC0400, True),  # an NMI to all but itself
    ],
)
def test_what_else_may_go_from_root_to_root(sender: int, target: int, command: int, bad: bool) -> None:
    one = judge()
    ring(one, sender, target, command)
    assert bool(found(one)) is bad


def test_msrs() -> None:
    one = judge()
    one.take_msr(Role.NEW, Phase.LAUNCH, MsrWrite(0, 0xC000_0080, 0xD01))
    one.take_msr(Role.NEW, Phase.LAUNCH, MsrWrite(0, 0x277, 0x7))
    assert found(one) == []
    one.take_msr(Role.OLD, Phase.BOTH, MsrWrite(0, 0x79, 0))
    one.take_msr(Role.NEW, Phase.LAUNCH, MsrWrite(0, 0x10, 0))
    assert [(row, who) for row, who, _ in found(one)] == [("microcode", "old"), ("tsc", "new")]


def test_what_was_seen_is_counted_by_phase_and_root() -> None:
    one = judge(Phase.LAUNCH)
    one.take(access(OLD, 0x43))
    one.enter(Phase.BOTH)
    one.take(access(OLD, 0x43))
    one.take(access(OLD, 0x40, write=False))
    seen = [(item.phase, item.who, item.reads, item.writes) for item in one.seen()]
    assert seen == [(Phase.LAUNCH, "old", 0, 1), (Phase.BOTH, "old", 1, 1)]
