# SPDX-License-Identifier: GPL-2.0-or-later
"""This process as the agent of commands that a user runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc, root_pb2, root_pb2_grpc, vm_pb2_grpc
from multiroot.vm.elsewhere import no_other_root
from multiroot.vm.manager import VmManager
from multiroot.vm.vm_service import VmService

REPO = Path(__file__).parents[3]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Done]]


class LoneRoot(root_pb2_grpc.RootServiceServicer):
    """A root without neighbours."""

    async def GetStatus(self, request: root_pb2.GetStatusRequest, context: object) -> root_pb2.RootStatus:
        return root_pb2.RootStatus(root=1)


class Coordinator(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Says that a handoff went well."""

    async def Handoff(
        self, request: coordinator_pb2.HandoffRequest, context: object
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        result = coordinator_pb2.HandoffResult(
            name=request.names[0],
            epoch=2,
            device_state_bytes=70_000,
            stopped_ns=1_000_000,
            resumed_ns=43_500_000,
        )
        yield coordinator_pb2.Progress(handed_off=result)


@asynccontextmanager
async def serving(manager: VmManager, tmp_path: Path) -> AsyncIterator[Run]:
    """What runs a command whose agent has this manager; the agent's socket is `tmp_path`/agent."""
    server = make_server(lambda name: True, no_other_root)
    vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(manager), server)
    root_pb2_grpc.add_RootServiceServicer_to_server(LoneRoot(), server)
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(Coordinator(), server)
    server.add_insecure_port(f"unix:{tmp_path}/agent")
    await server.start()
    env = {**os.environ, "MULTIROOT_AGENT": f"unix:{tmp_path}/agent", "PYTHONPATH": str(REPO)}

    async def run(*words: object) -> Done:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "multiroot.cli.main", *map(str, words),
            env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    yield run
    await server.stop(None)
