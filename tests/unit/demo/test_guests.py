# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that do not boot are started again, are counted, and are given up in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from multiroot.demo import guests
from multiroot.errors import ConflictError, MultirootError
from multiroot.phases import Phases
from multiroot.rpc.client import connect
from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm.messages import ticks_to_proto
from multiroot.vm.ticks import Stretch, Tick

Boot = Callable[["Host"], "asyncio.Future[int]"]


class Host(vm_pb2_grpc.VmServiceServicer):
    """Runs VMs of which the first `failures` boots end before they have ticked more than `ticks` times."""

    def __init__(self, failures: int, ticks: int = 0) -> None:
        self.failures = failures
        self.ticks = tuple(Tick(number, number) for number in range(ticks))
        self.calls: list[str] = []

    async def Run(self, request: vm_pb2.RunVmRequest, context: Any) -> vm_pb2.Vm:
        self.calls.append(f"run {request.definition.name}")
        return vm_pb2.Vm()

    async def Remove(self, request: vm_pb2.RemoveVmRequest, context: Any) -> vm_pb2.RemoveVmResponse:
        self.calls.append(f"stop {request.name}")
        self.failures -= 1
        return vm_pb2.RemoveVmResponse()

    async def GetTicks(self, request: vm_pb2.GetTicksRequest, context: Any) -> vm_pb2.Ticks:
        if request.wait_count and self.failures:
            raise ConflictError(f"{request.name} is failed and ticks no more", "the guest reset itself")
        return ticks_to_proto(Stretch(b"", None, self.ticks))


@pytest.fixture
async def boot(tmp_path: Path) -> AsyncIterator[Boot]:
    """Boots vm1 on a host, as the workstation does."""
    servers = []

    async def run(host: Host) -> int:
        server = make_server(lambda name: True, lambda name: pytest.fail("no other root"))
        vm_pb2_grpc.add_VmServiceServicer_to_server(host, server)
        server.add_insecure_port(f"unix:{tmp_path / 'agent'}")
        await server.start()
        servers.append(server)

        def work() -> int:
            with connect(f"unix:{tmp_path / 'agent'}") as channel:
                assert isinstance(channel, grpc.Channel)
                return guests.boot(channel, guests.definitions(1, 64 * MIB), 5, Phases("test"))

        return await asyncio.to_thread(work)

    yield run  # type: ignore[misc]
    for server in servers:
        await server.stop(None)


async def test_a_guest_that_boots_is_not_touched(boot: Boot) -> None:
    host = Host(failures=0)
    assert await boot(host) == 0
    assert host.calls == ["run vm1"]


async def test_a_boot_is_tried_again_and_counted(boot: Boot) -> None:
    host = Host(failures=2)
    assert await boot(host) == 2
    assert host.calls == ["run vm1", "stop vm1", "run vm1", "stop vm1", "run vm1"]


async def test_a_guest_that_never_boots_is_given_up(boot: Boot) -> None:
    host = Host(failures=9)
    with pytest.raises(MultirootError, match=r"vm1 did not boot: .*\(the guest reset itself\)"):
        await boot(host)
    assert host.calls.count("run vm1") == guests.ATTEMPTS


async def test_a_guest_that_dies_after_it_ticked_is_a_failure(boot: Boot) -> None:
    host = Host(failures=1, ticks=3)
    with pytest.raises(MultirootError, match="did not boot"):
        await boot(host)
    assert host.calls == ["run vm1"]
