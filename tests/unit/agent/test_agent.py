# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent offers: its services, those it must refuse, and reflection for other people's clients."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from multiroot.agent.context import Options, Root
from multiroot.agent.guests import Guests
from multiroot.agent.handoffs import Handoffs
from multiroot.agent.parts import offer
from multiroot.agent.updates import Updates
from multiroot.arena.arena import open_or_format
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, Edge, State
from multiroot.errors import BadRequestError, PeerLostError
from multiroot.handoff.terms import USUAL
from multiroot.passthrough.devices import TABLES
from multiroot.phases import Phases
from multiroot.root.identity import Identity
from multiroot.root.marks import Marks
from multiroot.root.peers import Peer, Peers, Role, SideState
from multiroot.rpc.client import connect
from multiroot.rpc.late import Services
from multiroot.rpc.server import make_server
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc, vm_pb2, vm_pb2_grpc
from multiroot.units import MIB

NO_ARENA = BadRequestError("no persistent memory in devdax mode for the arena", "make one")


class NoNeighbours:
    """A root alone on its machine."""

    async def detach_parent(self) -> None:
        """There is none."""

    def channel(self, name: str) -> grpc.aio.Channel:
        raise PeerLostError(f"there is no {name} root")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    def clock() -> int:
        return 1

    return Root(
        me=Identity(1, "6.12", "boot"),
        device=cast(Any, None),
        clock=clock,
        tsc_khz=1,
        marks=Marks(clock, tmp_path / "marks"),
        peers=Peers(clock, clock),
        neighbours=cast(Any, NoNeighbours()),
        phases=Phases("root 1", clock),
        options=Options(run_dir=tmp_path),
    )


def updates_of(root: Root, guests: Guests, journal: Journal) -> Updates:
    return Updates(root, cast(Any, None), guests, Handoffs(root, guests), journal)


@pytest.fixture
async def agent(root: Root, tmp_path: Path):
    guests = Guests(NO_ARENA)
    server = make_server(lambda _: True, root.neighbours.channel)
    services = Services()
    offer(services, root, guests, updates_of(root, guests, Journal(tmp_path / "journal")))
    server.add_generic_rpc_handlers([services])
    server.add_insecure_port(f"unix:{tmp_path}/agent")
    await server.start()
    yield f"unix:{tmp_path}/agent"
    await server.stop(None)


async def test_reflection_lists_every_service(agent: str) -> None:
    async with grpc.aio.insecure_channel(agent) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
    names = {service.name for service in answer.list_services_response.service}
    wanted = ("CoordinatorService", "HandoffService", "RootService", "VmService")
    assert {f"multiroot.v1.{name}" for name in wanted} < names
    assert "grpc.health.v1.Health" in names


async def test_a_root_without_an_arena_says_why_it_runs_no_vms_and_answers_the_rest(agent: str) -> None:
    def ask() -> coordinator_pb2.CoordinatorState:
        with connect(agent) as channel:
            with pytest.raises(BadRequestError, match="no persistent memory"), translated("the agent"):
                vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=10)
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            return stub.GetState(coordinator_pb2.GetStateRequest(), timeout=10)

    state = await asyncio.to_thread(ask)
    assert (state.root, state.state, state.taking_over) == (1, "idle", "none")


def test_what_is_no_vm_is_not_counted_as_one(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    arena = open_or_format(path, 1)
    arena.allocate(TABLES, 2 * MIB, 0)
    arena.allocate("web", 2 * MIB, 1)
    host: Any = SimpleNamespace(host=SimpleNamespace(arena=arena))
    assert Guests(host).owned_by(1) == ["web"]


async def test_nothing_is_handed_to_a_root_that_is_not_there(root: Root) -> None:
    with pytest.raises(BadRequestError, match="no persistent memory"):
        await Handoffs(root, Guests(NO_ARENA)).hand_over(["web"], "new", USUAL, root.phases)
    with pytest.raises(PeerLostError, match="no new root"):
        await Handoffs(root, Guests(cast(Any, object()))).hand_over(["web"], "new", USUAL, root.phases)


class Silent(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """An agent that is asked to hand a VM back and says nothing."""

    async def Handoff(self, request: coordinator_pb2.HandoffRequest, context: Any) -> Any:
        await asyncio.Event().wait()
        yield


async def test_a_vm_is_not_waited_for_whose_root_is_silent(root: Root, tmp_path: Path) -> None:
    server = grpc.aio.server()
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(Silent(), server)
    server.add_insecure_port(f"unix:{tmp_path}/new")
    await server.start()
    page = SimpleNamespace(theirs=SimpleNamespace(root=2, state=SideState.READY, heartbeat=9))
    child = root.peers.attach(Role.CHILD, cast(Any, page))
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/new") as channel:
        neighbours: Any = root.neighbours
        neighbours.channel = lambda name: channel
        back = asyncio.create_task(Handoffs(root, Guests(NO_ARENA)).hand_back(["web"]))
        await asyncio.wait({back}, timeout=0.1)
        assert not back.done()
        child.gone = True
        root.peers.notify()
        with pytest.raises(PeerLostError, match="the new root does not answer, and web is in it"):
            await back
    await server.stop(None)


class Module:
    """A module that knows of a child when `child_control` is not 0."""

    def __init__(self, child_control: int) -> None:
        self.child_control = child_control

    def info(self) -> Module:
        return self


@pytest.mark.parametrize(
    ("child_control", "state", "kept"),
    [(0x1000, SideState.READY, True), (0x1000, SideState.PARKED, False), (0, SideState.READY, False)],
)
async def test_a_restarted_agent_keeps_a_new_root_that_lives(
    root: Root, tmp_path: Path, child_control: int, state: SideState, kept: bool
) -> None:
    journal = Journal(tmp_path / "journal")
    for step in LAUNCH:
        journal.write(step, Edge.BEGIN)
        journal.write(step, Edge.DONE)
    page = SimpleNamespace(theirs=SimpleNamespace(root=2, state=state, heartbeat=9), mine=SimpleNamespace())
    neighbours: Any = root.neighbours

    async def attach_child() -> Peer:
        return root.peers.attach(Role.CHILD, cast(Any, page))

    neighbours.attach_child = attach_child
    root = replace(root, device=cast(Any, Module(child_control)))
    updates = updates_of(root, Guests(NO_ARENA), journal)
    taken_back: list[str] = []

    async def undo(name: str, how: object) -> None:
        taken_back.append(name)

    updates.coordinator._undo = undo  # type: ignore[method-assign]
    await updates.recover()
    assert taken_back == ([] if kept else list(reversed(LAUNCH)))


async def test_a_restarted_agent_takes_back_a_launch_that_was_only_planned(
    root: Root, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    journal.write(next(iter(LAUNCH)), Edge.BEGIN)
    updates = updates_of(root, Guests(NO_ARENA), journal)
    await updates.recover()
    assert updates.coordinator.state is State.IDLE
    assert journal.standing().begun == ()
