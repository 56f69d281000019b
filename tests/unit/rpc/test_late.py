# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that answers some calls at once and has the others wait until it has learned how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest

from multiroot.errors import MultirootError
from multiroot.rpc.late import Gate, Services
from multiroot.rpc.server import make_server
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import root_pb2, root_pb2_grpc, vm_pb2, vm_pb2_grpc


class Root(root_pb2_grpc.RootServiceServicer):
    async def GetStatus(self, request: root_pb2.GetStatusRequest, context: Any) -> root_pb2.RootStatus:
        return root_pb2.RootStatus(root=7)


class Vms(vm_pb2_grpc.VmServiceServicer):
    """One unary call and one stream."""

    async def List(self, request: vm_pb2.ListVmsRequest, context: Any) -> vm_pb2.ListVmsResponse:
        return vm_pb2.ListVmsResponse(vms=[vm_pb2.Vm(owner=7)])

    async def Console(self, requests: Any, context: Any) -> AsyncIterator[vm_pb2.ConsoleResponse]:
        async for request in requests:
            yield vm_pb2.ConsoleResponse(output=request.name.encode())


def nobody(name: str) -> grpc.aio.Channel:
    raise AssertionError(name)


class Young:
    """An agent that has begun to answer."""

    def __init__(self) -> None:
        self.gate = Gate("/multiroot.v1.RootService/GetStatus")
        self.services = Services()
        root_pb2_grpc.add_RootServiceServicer_to_server(Root(), cast(Any, self.services))

    def server(self) -> grpc.aio.Server:
        server = make_server(lambda _: True, nobody, gate=self.gate)
        server.add_generic_rpc_handlers([self.services])
        return server

    def learn(self) -> None:
        vm_pb2_grpc.add_VmServiceServicer_to_server(Vms(), cast(Any, self.services))
        self.gate.open()


@pytest.fixture
async def young(tmp_path: Path) -> AsyncIterator[tuple[Young, grpc.aio.Channel]]:
    young = Young()
    server = young.server()
    server.add_insecure_port(f"unix:{tmp_path}/agent")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/agent") as channel:
        yield young, channel
    await server.stop(None)


async def test_what_it_knows_is_answered_at_once_and_the_rest_when_it_has_learned_it(young) -> None:
    agent, channel = young
    listing = asyncio.ensure_future(
        vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=10)
    )
    console = vm_pb2_grpc.VmServiceStub(channel).Console(timeout=10)
    await console.write(vm_pb2.ConsoleRequest(name="web"))
    hearing = asyncio.ensure_future(console.read())
    status = await root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)
    assert status.root == 7
    await asyncio.wait({listing, hearing}, timeout=0.1)
    assert not listing.done()
    assert not hearing.done()
    agent.learn()
    assert [vm.owner for vm in (await listing).vms] == [7]
    assert (await hearing).output == b"web"


async def test_a_service_that_nobody_has_is_said_to_be_missing(young) -> None:
    agent, channel = young
    agent.gate.open()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=10)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_who_waits_and_who_comes_later_learn_why_it_has_not_learned_more(young) -> None:
    agent, channel = young
    stub = vm_pb2_grpc.VmServiceStub(channel)

    async def ask() -> None:
        with (
            pytest.raises(MultirootError, match="the journal is damaged") as refusal,
            translated("the agent"),
        ):
            await stub.List(vm_pb2.ListVmsRequest(), timeout=10)
        assert refusal.value.hint == "look at it"

    waiting = asyncio.create_task(ask())
    # This one passes after it, by the same connection.
    await root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)
    agent.gate.fail(MultirootError("the journal is damaged", "look at it"))
    await waiting
    await ask()


async def test_what_nobody_waits_for_any_more_is_not_done(young) -> None:
    agent, channel = young
    done: list[str] = []

    class Counting(Vms):
        async def Remove(self, request: vm_pb2.RemoveVmRequest, context: Any) -> vm_pb2.RemoveVmResponse:
            done.append(request.name)
            return vm_pb2.RemoveVmResponse()

    stub = vm_pb2_grpc.VmServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.Remove(vm_pb2.RemoveVmRequest(name="given up"), timeout=0.1)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = asyncio.ensure_future(stub.Remove(vm_pb2.RemoveVmRequest(name="wanted"), timeout=10))
    await root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)
    vm_pb2_grpc.add_VmServiceServicer_to_server(Counting(), cast(Any, agent.services))
    agent.gate.open()
    await waiting
    assert done == ["wanted"]
