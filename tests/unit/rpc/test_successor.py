# SPDX-License-Identifier: GPL-2.0-or-later
"""Following an update from the old root's agent to the new one's, at one address."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from multiroot.errors import MultirootError
from multiroot.phases import Phase
from multiroot.rpc import phases as wire
from multiroot.rpc import successor
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

State = coordinator_pb2.CoordinatorState


def phase(name: str, start_ns: int) -> Phase:
    return Phase(name, "root 2", start_ns, 1)


class Agents(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Answers with one state after the other."""

    def __init__(self, *states: State) -> None:
        self._states = iter(states)

    def GetState(self, request: object, context: object) -> State:
        return next(self._states)


@pytest.fixture
def target(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(Agents(*request.param), server)
    server.add_insecure_port(f"unix:{tmp_path}/agent")
    server.start()
    yield f"unix:{tmp_path}/agent"
    server.stop(None)


def state(taking_over: str, *phases: Phase, error: str = "") -> State:
    return State(root=2, taking_over=taking_over, taking_over_error=error, phases=map(wire.to_proto, phases))


ONE, TWO, THREE = phase("adopt CPU", 1), phase("adopt CPU", 2), phase("adopt devices", 3)


@pytest.mark.parametrize(
    "target",
    [
        # The third answer lacks the oldest phase: an agent keeps only its newest ones.
        [State(root=1), state("adopting", ONE, TWO), state("adopting", TWO, THREE), state("done", TWO, THREE)]
    ],
    indirect=True,
)
def test_every_phase_is_shown_once_although_the_agent_drops_old_ones(target: str) -> None:
    shown: list[Phase] = []
    assert successor.wait(target, 1, shown.append).taking_over == "done"
    assert shown == [ONE, TWO, THREE]


@pytest.mark.parametrize("target", [[State(root=1, error="a driver does not let go")]], indirect=True)
def test_an_old_root_that_went_on_is_an_error(target: str) -> None:
    with pytest.raises(MultirootError, match="root 1 did not retire: a driver does not let go"):
        successor.wait(target, 1, lambda _: None)


@pytest.mark.parametrize("target", [[state("failed", error="a CPU did not park")]], indirect=True)
def test_a_new_root_that_did_not_get_everything_is_an_error(target: str) -> None:
    with pytest.raises(MultirootError, match="root 2 did not get everything: a CPU did not park"):
        successor.wait(target, 1, lambda _: None)
