# SPDX-License-Identifier: GPL-2.0-or-later
from pathlib import Path

from multiroot.watch.recording import Recording
from multiroot.watch.view import View

SAMPLE = Path(__file__).with_name("sample.mrlog")


def test_the_sample_is_a_recording_of_a_handoff() -> None:
    view = View()
    for event in Recording(SAMPLE).events():
        view.apply(event)
        assert view.facts.machine.resets == 0
    done = [each for each in view.facts.handoffs.values() if each.stage == "done"]
    assert done
    assert all(each.resumed_ns > each.stopped_ns and each.ram_bytes_copied == 0 for each in done)
