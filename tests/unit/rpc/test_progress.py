# SPDX-License-Identifier: GPL-2.0-or-later
"""Following a call that streams its progress."""

from __future__ import annotations

import pytest

from multiroot.errors import MultirootError
from multiroot.phases import Phase
from multiroot.rpc import phases as wire
from multiroot.rpc.progress import ended, follow
from multiroot.rpc.v1 import coordinator_pb2

BEGUN, DONE = Phase("load", "old root", 5), Phase("load", "old root", 5, 7)
PHASES = [coordinator_pb2.Progress(phase=wire.to_proto(phase)) for phase in (BEGUN, DONE)]
RESULT = coordinator_pb2.Progress(handed_off=coordinator_pb2.HandoffResult(name="vm1"))


def test_everybody_gets_each_phase_and_the_caller_the_result() -> None:
    shown: list[Phase] = []
    kept: list[Phase] = []
    assert follow([*PHASES, RESULT], shown.append, ended(kept.append)) == RESULT
    assert shown == [BEGUN, DONE]
    assert kept == [DONE]


def test_phases_after_the_result_do_not_hide_it() -> None:
    assert follow([RESULT, *PHASES]) == RESULT


def test_a_call_that_ends_without_a_result_is_an_error() -> None:
    shown: list[Phase] = []
    with pytest.raises(MultirootError, match="without a result"):
        follow(PHASES, shown.append)
    assert shown == [BEGUN, DONE]
