# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's handoffs from the inside: contenders side by side, each kind of VM by itself."""

from __future__ import annotations

from multiroot.bench.names import IN_PLACE, OURS, traced
from multiroot.bench.results import guest_gap, inside, qemu_trace
from multiroot.bench.results.samples import Header, Run, Sample, variant_name
from multiroot.bench.results.view import View
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase

HEADER = Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {}, 0.1, 1, {})
VIEW = View("blackout_ns", IN_PLACE, OURS, (), owners=(OURS, IN_PLACE))


def blackout(contender: str, kind: str, saving: int, loading: int) -> Sample:
    """In ms."""
    return Sample(variant_name(contender, kind), 0, phases=(
        Phase(PhaseName.SAVE_DEVICE_STATE, "root 1", 0, saving * 1_000_000, blackout=True),
        Phase(PhaseName.LOAD_DEVICE_STATE, "root 2", saving * 1_000_000, loading * 1_000_000, blackout=True),
    ))  # fmt: skip


def within(contender: str, kind: str, exits: int, us: int) -> Sample:
    """With tracepoints on: what a virtual CPU and QEMU did."""
    device = qemu_trace.Device("cpu", qemu_trace.LOADED, us * 1000, maps=1, slots=3)
    return Sample(variant_name(traced(contender), kind), 0, phases=(
        Phase("KVM, exit msr: IPI", "virtual CPU", 0, 2_000_000,
              attrs={"stretch": guest_gap.FIRST, "ticks": 1, "exits": exits}),
        *qemu_trace.phases([device], 0),
    ))  # fmt: skip


def test_contenders_are_side_by_side_and_kinds_are_not_mixed() -> None:
    run = Run(HEADER, (
        blackout(OURS, "q35", 10, 20), blackout(IN_PLACE, "q35", 9, 15), blackout(OURS, "microvm", 2, 3),
        within(OURS, "q35", 4, 500), within(IN_PLACE, "q35", 6, 400),
    ))  # fmt: skip
    found = {told.title: told.table for told in inside.tables(run, VIEW)}
    assert list(found) == [
        "Who owns the blackout, q35",
        "What QEMU does in the blackout, q35",
        "The guest's gap from the inside: multi-root, q35",
        "The guest's gap from the inside: in-place, q35",
        "Who owns the blackout, microvm",
    ]
    heads, rows = found["Who owns the blackout, q35"]
    assert heads[1:] == ("multi-root, q35, ms >", "in-place, q35, ms >")
    assert rows[0] == ("load device state", "20.00", "15.00")
    heads, rows = found["What QEMU does in the blackout, q35"]
    assert len(heads) == 5
    assert rows[0] == ("cpu", "0.00", "0.50 (1.0, 3.0)", "0.00", "0.40 (1.0, 3.0)")
    _, rows = found["The guest's gap from the inside: in-place, q35"]
    assert rows[0] == ("KVM, exit msr: IPI", "0.00", "2.00 (6.0)", "0.00", "0.00")


def test_a_device_that_one_of_them_lacks_leaves_a_hole_and_sums_come_last() -> None:
    run = Run(HEADER, (within(OURS, "", 1, 500), within(IN_PLACE, "", 1, 20)))
    table = next(told.table for told in inside.tables(run, VIEW) if "QEMU" in told.title)
    assert [row[0] for row in table[1]] == ["cpu", qemu_trace.OTHERS, qemu_trace.ALL]
    assert table[1][0][3:] == ("", "")


def test_the_network_has_a_table() -> None:
    sample = blackout(OURS, "", 10, 20)
    told = Phase(PhaseName.PASS_ON, "root 1", 31_000_000, 1_000_000, attrs={"frames": 2})
    run = Run(HEADER, (Sample(OURS, 0, phases=(*sample.phases, told)),))
    (_, heard) = inside.tables(run, VIEW)
    assert heard.table[1] == [
        ("the giver has sent on what waited for the guest", "2.00", "2.00", "2.00", "1", "2")
    ]


def test_who_tells_nothing_has_no_tables() -> None:
    assert inside.tables(Run(HEADER, (Sample(OURS, 0, {"blackout_ns": 5.0}),)), VIEW) == []
