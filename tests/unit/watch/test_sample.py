# SPDX-License-Identifier: GPL-2.0-or-later
"""Two recordings: sample.mrlog, made by hand, has a whole update; handoff.mrlog is of a real run in a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.watch.events import Points
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

HERE = Path(__file__).parent


@pytest.mark.parametrize(("name", "vm"), [("sample.mrlog", "vm0"), ("handoff.mrlog", "web")])
def test_a_recording_tells_how_a_vm_crosses(name: str, vm: str) -> None:
    view, owners, ticks = View(), [], []
    for event in Recording(HERE / name).events():
        view.apply(event)
        if isinstance(event, Points):
            ticks += [point[1] for point in event.points[f"ticks/{vm}"]]
            continue
        assert view.facts.machine.resets == 0
        owner = (view.facts.vms[vm].owner, view.facts.vms[vm].epoch)
        if owners[-1:] != [owner]:
            owners.append(owner)
    assert owners == [(1, 1), (2, 2)]
    assert sorted(ticks) == list(range(min(ticks), max(ticks) + 1))
    (done,) = [each for each in view.facts.handoffs.values() if each.stage == "done"]
    assert 0 < done.resumed_ns - done.stopped_ns < done.gap_ns
    assert done.ram_bytes_copied == 0
