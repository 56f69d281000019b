# SPDX-License-Identifier: GPL-2.0-or-later
"""A canary that an agent left is ended by the next one: here, or through the new root's agent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest
from agent.test_agent import root as root
from agent.test_agent import updates_of
from arena.conftest import blank_file
from handoff.memory_vmm import MemoryVmms

from multiroot.agent import canary_vm
from multiroot.agent.context import Root
from multiroot.agent.guests import Guests
from multiroot.agent.updates import Updates
from multiroot.arena.arena import Arena, Entry, format_arena
from multiroot.arena.layout import CANARY
from multiroot.coordinator import canary
from multiroot.coordinator.journal import Journal
from multiroot.errors import ConflictError, PeerLostError
from multiroot.root.peers import Role, SideState
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager

ME, CHILD = 1, 2


class Module:
    """Roots that have ended."""

    def __init__(self) -> None:
        self.ended: set[int] = set()

    def has_ended(self, number: int) -> bool:
        return number in self.ended


class World:
    """This root with its arena, and a new root beside it."""

    def __init__(self, root: Root, top: Path) -> None:
        self.module = Module()
        path = blank_file(top / "arena")
        format_arena(path)
        self.arena = Arena(path, ME, self.module.has_ended)
        self.devices = SimpleNamespace(stop_ended=lambda: None)
        host = Host(
            ME, self.arena, root.clock, top / "vms", MemoryVmms(), devices=cast(Any, self.devices), guests=top
        )
        self.root = replace(root, device=cast(Any, self.module))
        page = SimpleNamespace(theirs=SimpleNamespace(root=CHILD, state=SideState.READY, heartbeat=9))
        self.root.peers.attach(Role.CHILD, cast(Any, page))
        self.new: grpc.aio.Channel | None = None
        cast(Any, root.neighbours).channel = self._channel
        guests = Guests(VmManager(host), channel=root.neighbours.channel)
        self.updates: Updates = updates_of(self.root, guests, Journal(top / "journal"))

    def _channel(self, name: str) -> grpc.aio.Channel:
        if self.new is None:
            raise PeerLostError(f"root {name} has not been heard of")
        return self.new

    def own(self, name: str, root: int) -> None:
        entry = self.arena.allocate(name, 2 * MIB, 0)
        if root != ME:
            self.arena.take(name, entry.owner, root)

    def names(self) -> list[str]:
        return [entry.name for entry in self.arena.entries()]


@pytest.fixture
def world(root: Root, tmp_path: Path) -> World:
    return World(root, tmp_path)


class NewRoot(vm_pb2_grpc.VmServiceServicer):
    """The VMs of the new root. It does as it is told once `awake` is set."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.awake = asyncio.Event()

    async def Remove(self, request: vm_pb2.RemoveVmRequest, context: Any) -> vm_pb2.RemoveVmResponse:
        await self.awake.wait()
        self.world.arena.free(request.name, self.world.arena.find(request.name).owner)
        return vm_pb2.RemoveVmResponse()


@asynccontextmanager
async def answering(world: World, top: Path) -> AsyncIterator[NewRoot]:
    server = grpc.aio.server()
    there = NewRoot(world)
    vm_pb2_grpc.add_VmServiceServicer_to_server(there, server)
    server.add_insecure_port(f"unix:{top}/new")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{top}/new") as world.new:
        yield there
    await server.stop(None)


@pytest.mark.parametrize("ended", [False, True])
async def test_one_that_this_root_has_or_that_is_lost_is_gone_before_the_agent_answers(
    world: World, ended: bool
) -> None:
    world.own("web", CHILD)
    world.own(CANARY, CHILD if ended else ME)
    world.module.ended = {CHILD} if ended else set()
    await world.updates._clear()
    assert world.names() == ["web"]


async def test_one_in_the_new_root_is_ended_there_and_nobody_waits_for_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "AGAIN_S", 0.01)
    world.own("web", CHILD)
    world.own(CANARY, CHILD)
    assert world.updates.guests_there() == ["web"], "it is not one of the VMs that hold a root"
    await world.updates._clear()
    async with answering(world, tmp_path) as new, asyncio.timeout(10):
        assert CANARY in world.names()
        new.awake.set()
        await world.updates.canary.remove()
    assert world.names() == ["web"]


async def test_that_of_a_root_that_is_no_child_is_left_alone(world: World) -> None:
    world.own(CANARY, 7)
    await world.updates._clear()
    await asyncio.sleep(0)
    assert world.names() == [CANARY]


async def test_one_that_the_new_roots_end_has_left_is_forgotten(world: World) -> None:
    world.own(CANARY, CHILD)
    world.module.ended = {CHILD}
    await world.updates._launch.ended()
    assert world.names() == []


async def test_devices_of_a_new_root_that_has_ended_stop_before_its_memory_is_anybodys(world: World) -> None:
    stopped: list[str] = []
    world.devices.stop_ended = lambda: stopped.append("all")
    await world.updates._launch.ended()
    assert stopped == ["all"]

    def fail() -> None:
        raise ConflictError("the modules are not there")

    world.devices.stop_ended = fail
    with pytest.raises(ConflictError, match="modules are not there"):
        await world.updates._launch.ended()


def test_room_for_it_is_looked_for_before_an_update_begins(world: World) -> None:
    """The arena has 64 MiB, and the canary wants more."""
    with pytest.raises(ConflictError, match="no room for the VM that an update tries first") as refused:
        world.updates._keeper.check_room()
    assert "--no-canary" in refused.value.hint
    world.own(CANARY, ME)
    world.updates._keeper.check_room()


def test_where_it_fits_nobody_is_kept_from_an_update(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_vm, "DEFINITION", replace(canary_vm.DEFINITION, ram_bytes=8 * MIB))
    world.updates._keeper.check_room()
    assert world.names() == []


async def test_one_that_is_just_being_started_is_gone_with_its_memory_when_it_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reserves the memory, and goes on when nobody waits for it any more."""
    asked, may = threading.Event(), threading.Event()
    allocate = world.arena.allocate

    def slowly(*words: Any) -> Entry:
        asked.set()
        assert may.wait(20)
        return allocate(*words)

    monkeypatch.setattr(canary_vm, "DEFINITION", replace(canary_vm.DEFINITION, ram_bytes=32 * MIB))
    monkeypatch.setattr(VmManager, "_check_here", lambda manager, definition: None)
    monkeypatch.setattr(world.arena, "allocate", slowly)
    world.updates.canary.boot_ahead()
    assert await asyncio.to_thread(asked.wait, 20)
    removing = asyncio.create_task(world.updates.canary.remove())
    await asyncio.sleep(0.05)  # what does not wait has not seen it by now
    may.set()
    async with asyncio.timeout(20):
        await removing
    assert world.names() == []
