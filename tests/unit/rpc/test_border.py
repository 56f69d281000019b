# SPDX-License-Identifier: GPL-2.0-or-later
"""What can't be meant never reaches a service; whatever a person may mean does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from multiroot.errors import BadRequestError
from multiroot.rpc.border import (
    ANSWER_MOST,
    BYTES_MOST,
    LIST_MOST,
    PHASES_MOST,
    REQUEST_MOST,
    USER_DATA_MOST,
    check,
)
from multiroot.rpc.client import connect
from multiroot.rpc.server import make_server
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import (
    common_pb2,
    coordinator_pb2,
    failpoint_pb2,
    handoff_pb2,
    root_pb2,
    vm_pb2,
    vm_pb2_grpc,
)
from multiroot.units import MIB

PHASE = common_pb2.Phase(name="transfer", side="root 1", attrs={"bytes": "70000"})
GOOD: list[Message] = [
    vm_pb2.ListVmsRequest(),
    vm_pb2.GetVmRequest(name="web-1"),
    vm_pb2.ConsoleRequest(input=bytes(range(256))),
    vm_pb2.RunVmRequest(
        definition=vm_pb2.VmDefinition(name="web", ram_bytes=64 * MIB, append='quiet x="ü"\ty')
    ),
    vm_pb2.DefineVmRequest(definition=vm_pb2.VmDefinition(user_data="#!/bin/sh\n\techo ü\r\n")),
    vm_pb2.FilePiece(name="sha256:12", size=1 << 30, data=bytes(1 << 16)),
    coordinator_pb2.HandoffRequest(names=["web"], to="12"),
    coordinator_pb2.LaunchRequest(
        kernel="/boot/vmlinuz ü,", cpus="1-3,7", append="a" * 2000, carve_base=1 << 40
    ),
    coordinator_pb2.UpdateRequest(devices=["0000:00:02.0"] * 64, until="handover"),
    coordinator_pb2.TakeOverRequest(phases=[PHASE] * 4096),
    handoff_pb2.PrepareRequest(giver=254, epoch=(1 << 64) - 1, extents=[vm_pb2.Extent(size=1 << 40)]),
    handoff_pb2.HintRequest(name="web", hints=bytes(1000)),
    handoff_pb2.TransferRequest(name="web"),
    root_pb2.SetClockRequest(wall_offset_ns=1_800_000_000 * 10**9),
]
BAD: list[tuple[Message, str]] = [
    (vm_pb2.GetVmRequest(name="Web"), "GetVmRequest.name"),
    (vm_pb2.StopVmRequest(name="../../etc"), "StopVmRequest.name"),
    (vm_pb2.RemoveVmRequest(name=".home-web"), "RemoveVmRequest.name"),
    (vm_pb2.UnpauseVmRequest(name=" "), "UnpauseVmRequest.name"),
    (vm_pb2.StopVmRequest(timeout_s=1 << 31), "StopVmRequest.timeout_s"),
    (vm_pb2.EditVmRequest(definition=vm_pb2.VmDefinition(user_data="a\x1b")), "VmDefinition.user_data"),
    (
        vm_pb2.EditVmRequest(definition=vm_pb2.VmDefinition(user_data="a" * (USER_DATA_MOST + 1))),
        "VmDefinition.user_data",
    ),
    (vm_pb2.GetTicksRequest(name="web\n"), "GetTicksRequest.name"),
    (vm_pb2.ConsoleRequest(name="web\0"), "ConsoleRequest.name"),
    (vm_pb2.ConsoleRequest(input=bytes(BYTES_MOST + 1)), "ConsoleRequest.input"),
    (vm_pb2.RunVmRequest(definition=vm_pb2.VmDefinition(name="-")), "VmDefinition.name"),
    (vm_pb2.RunVmRequest(definition=vm_pb2.VmDefinition(ram_bytes=(1 << 64) - 1)), "VmDefinition.ram_bytes"),
    (vm_pb2.RunVmRequest(definition=vm_pb2.VmDefinition(append="a\nb")), "VmDefinition.append"),
    (vm_pb2.RunVmRequest(definition=vm_pb2.VmDefinition(machine="q" * 300)), "VmDefinition.machine"),
    (
        vm_pb2.RunVmRequest(definition=vm_pb2.VmDefinition(cards=[vm_pb2.Card()] * (LIST_MOST + 1))),
        "VmDefinition.cards",
    ),
    (vm_pb2.RunVmRequest(definition=vm_pb2.VmDefinition(cards=[vm_pb2.Card(mac="\x1b[2J")])), "Card.mac"),
    (coordinator_pb2.HandoffRequest(names=["web"], to="newest"), "HandoffRequest.to"),
    (coordinator_pb2.HandoffRequest(names=["web"], to="9" * 5000), "HandoffRequest.to"),
    (coordinator_pb2.LaunchRequest(kernel="k" * 5000), "LaunchRequest.kernel"),
    (coordinator_pb2.LaunchRequest(join_timeout_s=1 << 31), "LaunchRequest.join_timeout_s"),
    (
        coordinator_pb2.UpdateRequest(launch=coordinator_pb2.LaunchRequest(append="\0")),
        "LaunchRequest.append",
    ),
    (coordinator_pb2.TakeOverRequest(phases=[PHASE] * (PHASES_MOST + 1)), "TakeOverRequest.phases"),
    (coordinator_pb2.TakeOverRequest(phases=[common_pb2.Phase(attrs={"a": "\r"})]), "Phase.attrs"),
    (coordinator_pb2.TakeOverRequest(phases=[common_pb2.Phase(attrs={"\r": "a"})]), "Phase.attrs"),
    (handoff_pb2.PrepareRequest(giver=255), "PrepareRequest.giver"),
    (handoff_pb2.PrepareRequest(extents=[vm_pb2.Extent(offset=1 << 63)]), "Extent.offset"),
    (root_pb2.SetClockRequest(wall_offset_ns=-1), "SetClockRequest.wall_offset_ns"),
    (failpoint_pb2.ArmRequest(seconds=math.nan), "ArmRequest.seconds"),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: type(message).__name__)
def test_what_a_person_or_a_root_may_mean_passes(message: Message) -> None:
    check(message)
    assert message.ByteSize() <= REQUEST_MOST


@pytest.mark.parametrize(("message", "field"), BAD, ids=[f"{field}-{i}" for i, (_, field) in enumerate(BAD)])
def test_what_cannot_be_meant_is_refused_in_one_short_line(message: Message, field: str) -> None:
    with pytest.raises(BadRequestError, match=field.replace(".", r"\.")) as caught:
        check(message)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


class Vms(vm_pb2_grpc.VmServiceServicer):
    def __init__(self) -> None:
        self.saw: list[Message] = []

    async def Get(self, request, context):
        self.saw.append(request)
        return vm_pb2.Vm(error="x" * (ANSWER_MOST + 1) if request.name == "large" else "")

    async def Console(self, request_iterator, context):
        async for request in request_iterator:
            self.saw.append(request)
            yield vm_pb2.ConsoleResponse(output=request.input)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[tuple[str, Vms]]:
    vms, server = Vms(), make_server(lambda _: True, lambda _: None)
    vm_pb2_grpc.add_VmServiceServicer_to_server(vms, server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    yield f"unix:{tmp_path}/s", vms
    await server.stop(None)


async def test_a_service_never_sees_it(agent: tuple[str, Vms]) -> None:
    target, vms = agent

    def call() -> None:
        with connect(target) as channel:
            stub = vm_pb2_grpc.VmServiceStub(channel)
            with pytest.raises(BadRequestError, match=r"GetVmRequest\.name"), translated("the agent"):
                stub.Get(vm_pb2.GetVmRequest(name="no/name"), timeout=10)
            good, bad = vm_pb2.ConsoleRequest(name="web", input=b"a"), vm_pb2.ConsoleRequest(name="a b")
            answers = stub.Console(iter([good, bad, good]), timeout=10)
            assert next(answers).output == b"a"
            with pytest.raises(BadRequestError, match=r"ConsoleRequest\.name"), translated("the agent"):
                next(answers)
            for request in (
                vm_pb2.GetVmRequest(name="x" * (REQUEST_MOST + 1)),
                vm_pb2.GetVmRequest(name="large"),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Get(request, timeout=30)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    await asyncio.to_thread(call)
    assert vms.saw == [vm_pb2.ConsoleRequest(name="web", input=b"a"), vm_pb2.GetVmRequest(name="large")]
