# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of frames that waited for a guest in its blackout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from multiroot.handoff.late_traffic import LateTraffic
from multiroot.phase_names import PhaseName


class Frames:
    """So many wait at each time."""

    def __init__(self, counts: list[int]) -> None:
        self._counts = counts

    def listen(self) -> None:
        """From now on."""

    def pass_on(self) -> int:
        return self._counts.pop(0)

    def close(self) -> None:
        """No more."""


def late(frames: Frames, **changed: Any) -> LateTraffic:
    """Of a VM with a card; its clock goes on by 5 with each look."""
    moments = iter(range(100, 200, 5))
    host = SimpleNamespace(
        clock=lambda: next(moments), network=SimpleNamespace(late_frames=lambda *_: frames)
    )
    vm: Any = SimpleNamespace(
        name="vm0", taps=("tap0",), cards={}, paused=False, host=host,
        vmm=SimpleNamespace(process=SimpleNamespace(pid=1)),
    )  # fmt: skip
    vars(vm).update(changed)
    traffic = LateTraffic(vm, 2, "root 1")
    traffic.open()
    return traffic


def test_it_is_told_when_what_had_waited_was_passed_on() -> None:
    traffic = late(Frames([3, 1]))
    assert traffic.passed == ()
    for _ in range(2):
        traffic.pass_on()
    (phase,) = traffic.passed
    assert (phase.name, phase.side, phase.start_ns, phase.end_ns) == (PhaseName.PASS_ON, "root 1", 100, 105)
    assert phase.attrs == {"vm": "vm0", "frames": 3}
    assert not phase.blackout


def test_nothing_is_told_of_a_guest_that_nobody_listens_for() -> None:
    traffic = late(Frames([1]), paused=True)
    traffic.pass_on()
    assert traffic.passed == ()
