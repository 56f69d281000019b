# SPDX-License-Identifier: GPL-2.0-or-later
"""Any request to any service of an agent is done or refused in our words: no bug, no hang, no dead agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from agent.messages import like
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from handoff.harness import SMALL
from handoff.memory_vmm import MemoryVmms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kexec.x86.bzimage import BzImage
from launch.fakes import FakeDevice
from plan.strategies import machine
from root.carve_fakes import Device
from root.test_peers import FakePage, FakeSide
from vmcore.small_kernel import BASE

from multiroot.arena.arena import Arena, format_arena
from multiroot.coordinator.adoption import Adoption, AdoptionContext
from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.coordinator_service import CoordinatorParts, CoordinatorService
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import STEPS
from multiroot.coordinator.steps import LaunchContext, PlanStep, make_plan
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.handoff.evacuation import Outcome
from multiroot.handoff.handoff_service import HandoffService
from multiroot.handoff.taker import Taker
from multiroot.launch import session
from multiroot.phases import Phases
from multiroot.root.identity import Identity
from multiroot.root.marks import Marks
from multiroot.root.memory_service import MemoryParts, MemoryService
from multiroot.root.peers import Peers, Role, SideState
from multiroot.root.root_service import RootParts, RootService
from multiroot.rpc.server import make_server
from multiroot.rpc.status import ERROR_KEY, decode, translated
from multiroot.rpc.v1 import (
    common_pb2,
    coordinator_pb2,
    coordinator_pb2_grpc,
    handoff_pb2,
    handoff_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    root_pb2,
    root_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)
from multiroot.units import MIB
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_to_proto
from multiroot.vm.vm_service import VmService

METHODS = [
    method
    for module in (coordinator_pb2, handoff_pb2, memory_pb2, root_pb2, vm_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
HANG_S = 20.0
# They wait for as long as the caller likes.
ENDLESS = {"Console": 1.0, "GetTicks": 1.0}
LAUNCH = coordinator_pb2.LaunchRequest(kernel="6.12", cpus="2-3", carve_size=1 << 30)
GOOD: dict[str, Message] = {
    "Run": vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL)),
    "Expect": handoff_pb2.ExpectRequest(
        definition=definition_to_proto(SMALL), giver=2, epoch=1, vmm="memory", vmm_version="1",
        extents=[vm_pb2.Extent(offset=2 * MIB, size=SMALL.ram_bytes)],
    ),
    "Prepare": handoff_pb2.PrepareRequest(
        definition=definition_to_proto(SMALL), giver=2, epoch=1, vmm="memory", vmm_version="1",
        extents=[vm_pb2.Extent(offset=2 * MIB, size=SMALL.ram_bytes)],
    ),
    "Describe": memory_pb2.DescribeMemoryRequest(root="new"),
    "Read": memory_pb2.ReadMemoryRequest(root=2, ranges=[common_pb2.MemoryRange(start=BASE, size=1 << 20)]),
    "Plan": LAUNCH,
    "Launch": LAUNCH,
    "Update": coordinator_pb2.UpdateRequest(launch=LAUNCH, until="handover"),
}  # fmt: skip


@dataclass(frozen=True)
class AnyStep:
    """Does nothing, whatever it is called, and leaves what a launch's answer is made from."""

    async def do(self, data: Any) -> dict[str, Any]:
        return {"root": 2, "address": "", "start_ns": 0, "attached_ns": 0, "ready_ns": 0}

    async def undo(self, data: Any, force: bool) -> None:
        """There is nothing to undo."""


@pytest.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The services of an agent whose module, VMM and clock are fakes. A root beside it owns vm0."""
    monkeypatch.setattr(session, "take_inventory", lambda device, facts: machine())
    monkeypatch.setattr(time, "clock_settime_ns", settime)
    monkeypatch.setattr("multiroot.handoff.incoming.PREPARED_FOR_S", 5)
    for name in ("vmlinuz", "initrd"):
        (tmp_path / "guests/tiny").mkdir(parents=True, exist_ok=True)
        (tmp_path / "guests/tiny" / name).touch()
    (tmp_path / "kernels/6.12").mkdir(parents=True)
    (tmp_path / "kernels/6.12/vmlinuz").write_bytes(BzImage().build())
    with (tmp_path / "arena").open("wb") as file:
        file.truncate(256 * MIB)
    format_arena(tmp_path / "arena")
    other = Arena(tmp_path / "arena", 2)
    other.allocate("vm0", SMALL.ram_bytes, SMALL.checksum())
    phases = Phases("root 1")
    host = Host(
        root=1,
        arena=Arena(tmp_path / "arena", 1),
        clock=time.monotonic_ns,
        run_dir=tmp_path / "vms",
        vmm=MemoryVmms(),
        guests=tmp_path / "guests",
    )
    manager = VmManager(host)
    taker = Taker(manager, "root 1", "127.0.0.1")
    parts, adoption = coordinator(tmp_path, phases)
    server = make_server(lambda name: True, lambda name: pytest.fail("no relaying here"))
    vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(manager), server)
    handoff_pb2_grpc.add_HandoffServiceServicer_to_server(HandoffService(taker), server)
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(CoordinatorService(parts), server)
    root = RootParts(
        Identity(1, "6.12", "boot"),
        time.monotonic_ns,
        1,
        Marks(time.monotonic_ns, tmp_path / "marks"),
        Peers(time.monotonic_ns, time.monotonic_ns),
        list,
    )
    root_pb2_grpc.add_RootServiceServicer_to_server(RootService(root), server)
    memory = MemoryParts(Device(), Peers(time.monotonic_ns, time.monotonic_ns), 1)  # type: ignore[arg-type]
    memory.peers.attach(Role.CHILD, FakePage(theirs=FakeSide(state=SideState.READY, root=2)))
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(MemoryService(memory), server)
    target = f"unix:{tmp_path}/agent"
    server.add_insecure_port(target)
    await server.start()
    yield target
    await server.stop(None)
    if adoption._task:
        adoption._task.cancel()
    await taker.close()
    for vm in manager.all():
        await vm.discard()
    other.close()
    host.arena.close()


def no_module() -> Any:
    raise ConflictError("no module in this test")


def settime(_clock: int, ns: int) -> None:
    """As the kernel does, but for the setting."""
    if not 0 <= ns < 1 << 63:
        raise OverflowError("timestamp out of range")


def coordinator(folder: Path, phases: Phases) -> tuple[CoordinatorParts, Adoption]:
    context = LaunchContext(
        device=cast(Any, FakeDevice()),
        peers=Peers(time.monotonic_ns, time.monotonic_ns),
        neighbours=cast(Any, None),
        kernels=folder / "kernels",
        network=cast(Any, None),
        tsc_khz=1,
    )
    steps: dict[str, Any] = {**dict.fromkeys(STEPS, AnyStep()), "plan": PlanStep(context)}

    async def never(_timeout: float) -> bool:
        await asyncio.Event().wait()
        return False

    async def nothing() -> None:
        """There is no parent."""

    async def hand_over(names: Sequence[str], to: str, *_: object) -> list[Outcome]:
        raise ConflictError(f"no {to} root for {', '.join(names)}")

    async def expect(names: Sequence[str], to: str, *_: object, undo: bool) -> list[Outcome]:
        raise ConflictError(f"no {to} root for {', '.join(names)}")

    async def cancel(name: str, *, here: bool) -> coordinator_pb2.CancelHandoffResponse:
        return coordinator_pb2.CancelHandoffResponse()

    adoption = Adoption(
        AdoptionContext(
            phases=phases,
            ended=never,
            let_go=nothing,
            inherit_devices=lambda: None,
            come_to_disks=len,
            request=folder / "adoption",
            services=folder / "services",
            open_device=no_module,
        )
    )
    parts = CoordinatorParts(
        coordinator=Coordinator(Journal(folder / "journal"), steps, phases),
        adoption=adoption,
        phases=phases,
        plan=lambda request: make_plan(context, request),
        hand_over=hand_over,
        expect=expect,
        cancel=cancel,
        console=context.console,
        owners=dict,
        root=1,
    )
    return parts, adoption


@st.composite
def calls(draw: st.DrawFn) -> tuple[MethodDescriptor, Message]:
    method = draw(st.sampled_from(METHODS))
    return method, draw(like(method.input_type, GOOD.get(method.name)))


def call(channel: grpc.Channel, method: MethodDescriptor, request: Message) -> None:
    """Make the call and take all of its answers; raises grpc.RpcError."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type).FromString
    make = channel.stream_stream(path, lambda message: message.SerializeToString(), answer)
    for _ in make(iter([request]), timeout=ENDLESS.get(method.name, HANG_S)):
        pass


async def test_any_request_is_done_or_refused(agent: str, caplog: pytest.LogCaptureFixture) -> None:
    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    @given(calls())
    def check(made: tuple[MethodDescriptor, Message]) -> None:
        method, request = made
        try:
            call(channel, method, request)
        except grpc.RpcError as error:
            keys = [key for key, _ in error.trailing_metadata() or ()]
            if method.name in ENDLESS and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            ours = decode(error, "the agent")
            assert ERROR_KEY in keys, ours
            assert isinstance(ours, MultirootError)
            assert "this is a bug" not in ours.message, ours

    with grpc.insecure_channel(agent) as channel:
        await asyncio.to_thread(check)
    assert "Traceback" not in caplog.text


async def test_a_time_that_no_clock_can_show_is_refused(agent: str) -> None:
    def set_clock(offset: int) -> None:
        with grpc.insecure_channel(agent) as channel, translated("the agent"):
            stub = root_pb2_grpc.RootServiceStub(channel)
            stub.SetClock(root_pb2.SetClockRequest(wall_offset_ns=offset), timeout=HANG_S)

    for offset in (-(1 << 63), (1 << 63) - 1):
        with pytest.raises(BadRequestError, match=r"no time of day|can't be"):
            await asyncio.to_thread(set_clock, offset)
