# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a launch and their undo: the real ones, on a fake module and a sysfs made of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from launch.fakes import FakeDevice
from plan.strategies import machine

from multiroot.coordinator.coordinator import Data, Undoing
from multiroot.coordinator.steps import LaunchContext, make_steps
from multiroot.device.uapi import CpuState
from multiroot.errors import ConflictError, MultirootError, PeerLostError, WaitTimeoutError
from multiroot.plan.planner import Plan, plan
from multiroot.plan.request import Request
from multiroot.root.peers import Role, SideState
from multiroot.units import MIB

ENTRY = {"trampoline": 1, "page_table": 2, "stack": 3, "entry": 4, "boot_params": 5}


class Module(FakeDevice):
    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        self.claimed = False


class Child:
    """A new root that stands still in one state."""

    def __init__(self, state: SideState) -> None:
        self.root, self.state, self.role = 2, state, Role.CHILD


class Beside:
    """Stands in for Peers, Neighbours and the network: they see `child` once it is attached."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.attached = False

    async def attach_child(self, keys: Any = None) -> Child:
        self.attached = True
        return self.child

    async def detach_child(self) -> None:
        self.attached = False

    async def ensure(self) -> None:
        """The link is a port of the bridge."""

    def get(self, role: Role) -> Child | None:
        return self.child if self.attached else None

    async def wait(self, true: Any, timeout: float) -> bool:
        return bool(true())


class World:
    def __init__(self, top: Path, child: SideState = SideState.STARTED) -> None:
        self.module = Module()
        self.beside = Beside(Child(child))
        self.plan: Plan = plan(machine(), Request(needed=128 * MIB))
        self.sys = top
        for cpu in self.plan.cpus:
            self._write(f"devices/system/cpu/cpu{cpu.number}/online", "1")
        for block in self.plan.blocks:
            self._write(f"devices/system/memory/memory{block}/state", "online")
        beside, module = cast(Any, self.beside), cast(Any, self.module)
        self.told = 0  # how often somebody was told of the new root's end

        async def tell() -> None:
            assert CpuState.STARTED not in self.module.cpus.values()
            self.told += 1

        self.context = LaunchContext(
            module, beside, beside, top, beside, 1_000_000, tell, open_device=lambda: module, sys=top
        )
        self.steps = make_steps(self.context)
        self.how = Undoing()
        self.data: dict[str, Data] = {
            "plan": {"plan": self.plan.to_json(), "request": {"join_timeout_s": 7}},
            "load": {"entry": ENTRY},
        }

    def _write(self, path: str, text: str) -> None:
        (self.sys / path).parent.mkdir(parents=True, exist_ok=True)
        (self.sys / path).write_text(text)

    def cpus(self) -> set[str]:
        return {path.read_text() for path in self.sys.glob("devices/system/cpu/cpu*/online")}

    def blocks(self) -> set[str]:
        return {path.read_text() for path in self.sys.glob("devices/system/memory/memory*/state")}

    async def do(self, *names: str) -> None:
        for name in names:
            self.data[name] = {**self.data.get(name, {}), **await self.steps[name].do(self.data)}

    async def undo(self, *names: str) -> None:
        for name in names:
            await self.steps[name].undo(self.data, self.how)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_the_steps_take_and_that_their_undo_gives_all_of_it_back(world: World) -> None:
    await world.do("carve", "offline", "start")
    numbers = [cpu.number for cpu in world.plan.cpus]
    assert world.data["carve"] == {"root": 2}
    assert world.module.carved is not None
    assert world.cpus() == {"0"}
    assert world.blocks() <= {"offline"}
    assert world.module.cpus[numbers[0]] is CpuState.STARTED
    assert world.module.entered == {"cpu": numbers[0], **ENTRY}
    # 1000 and 3000 ticks of a 1 GHz TSC.
    assert world.data["start"] == {"start_ns": 1000, "entry_ns": 3000}
    assert not world.told
    await world.undo("start", "offline", "carve")
    assert world.told
    assert world.module.carved is None
    assert {world.module.cpus[number] for number in numbers} == {CpuState.OFFLINE}
    assert world.cpus() == {"1"}
    assert world.blocks() <= {"online_movable"}
    assert not world.beside.attached
    assert world.module.closed == 1, "the claim is dropped"


async def test_an_undo_may_run_twice_and_after_a_step_that_did_nothing(world: World) -> None:
    await world.undo("start", "offline", "carve")
    await world.do("carve")
    await world.undo("offline", "carve")
    await world.undo("offline", "carve")
    assert world.module.carved is None
    assert world.cpus() == {"1"}


async def test_a_cpu_that_cannot_be_granted_leaves_none_granted(world: World) -> None:
    last = world.plan.cpus[-1].number
    world.module.fail, world.module.fail_at = "grant", last
    await world.do("carve")
    with pytest.raises(ConflictError, match="grant refused"):
        await world.do("offline")
    assert CpuState.GRANTED not in world.module.cpus.values()
    await world.undo("offline", "carve")
    assert world.cpus() == {"1"}


async def test_somebody_elses_claim_stops_the_carve_before_anything_is_taken(world: World) -> None:
    world.module.fail = "claim"
    with pytest.raises(ConflictError, match="claim refused"):
        await world.do("carve")
    assert world.module.carved is None
    assert world.blocks() <= {"online"}
    assert world.module.closed == 1


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        (SideState.PARKED, PeerLostError, "ended while it came up"),
        (SideState.ATTACHED, WaitTimeoutError, "within 7 s; its kernel module came up"),
        (SideState.STARTED, WaitTimeoutError, "within 7 s; nothing was heard of it"),
    ],
)
async def test_a_root_that_does_not_join_is_told_by_how_far_it_came(
    tmp_path: Path, state: SideState, error: type[MultirootError], words: str
) -> None:
    world = World(tmp_path, state)
    await world.do("carve")
    with pytest.raises(error, match=words):
        await world.do("join")


@pytest.mark.parametrize(
    ("join", "calls"), [({}, 0), ({"then_handover": {}}, 1), ({"then_handover": {"no_canary": True}}, 0)]
)
async def test_a_canary_boots_while_a_root_comes_up_that_is_to_get_vms(
    world: World, join: Data, calls: int
) -> None:
    called: list[None] = []
    world.context.comes_for_vms = lambda: called.append(None)
    world.data["join"] = join
    await world.do("carve")
    with pytest.raises(MultirootError):
        await world.do("join")
    assert len(called) == calls


async def test_a_child_that_is_gone_cannot_join(world: World) -> None:
    with pytest.raises(PeerLostError, match="is gone"):
        await world.do("join")
