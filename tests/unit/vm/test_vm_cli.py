# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands as a user runs them, against this process as their agent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from multiroot.arena.arena import Arena
from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc, root_pb2, root_pb2_grpc, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm.definition import VmDefinition
from multiroot.vm.elsewhere import no_other_root
from multiroot.vm.manager import VmManager
from multiroot.vm.stream import wait_for_ticks
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


@pytest.fixture
async def multiroot(manager: VmManager, tmp_path: Path) -> AsyncIterator[Run]:
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


async def test_life_of_a_vm(multiroot: Run, manager: VmManager) -> None:
    started = await multiroot("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    assert started == Done(0, "vm0 runs in root 1, epoch 1\n", "")
    listed = json.loads((await multiroot("vm", "list", "--json")).out)
    assert [(each["name"], each["state"], each["ram_bytes"]) for each in listed] == [
        ("vm0", "running", 32 * MIB)
    ]
    table = await multiroot("vm", "list")
    assert "vm0" in table.out
    assert "32 MiB" in table.out
    shown = json.loads((await multiroot("vm", "show", "vm0", "--json")).out)
    assert shown == listed[0]
    assert "52:54:00" in (await multiroot("vm", "show", "vm0")).out
    assert (await multiroot("vm", "stop", "vm0")).code == 0
    assert json.loads((await multiroot("vm", "list", "--json")).out) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("vm", "show", "vm9"), 2, "no VM named 'vm9'"),
        (("vm", "stop", "vm9"), 2, "no VM named 'vm9'"),
        (("vm", "console", "vm9"), 2, "no VM named 'vm9'"),
        (("vm", "run", "vm9", "--memory", "33M"), 2, "33 MiB is not a multiple of 2 MiB"),
        (("vm", "run", "vm9", "--memory", "lots"), 2, "not a size: 'lots'"),
        (
            ("vm", "run", "vm9", "--memory", "1G", "--guest", "tiny"),
            3,
            "the arena has no free extent of 1 GiB",
        ),
        (("vm", "run", "vm9", "--machine", "pc"), 2, "no machine called 'pc'"),
        (("vm", "run", "vm9", "--guest", "none"), 2, "no guest image 'none'"),
        (("vm", "list", "--root", "third"), 2, "not a root"),
    ],
)
async def test_refusals_are_one_line(multiroot: Run, words: tuple[str, ...], code: int, message: str) -> None:
    done = await multiroot(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"multiroot: {message}")
    assert done.err.count("\n") == 1


async def test_duplicate(multiroot: Run) -> None:
    words = ("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    assert (await multiroot(*words)).code == 0
    again = await multiroot(*words)
    assert again.code == 3
    assert "already a VM vm0" in again.err


async def test_a_vm_comes_again_from_what_was_shown(multiroot: Run, tmp_path: Path) -> None:
    path = tmp_path / "vm0.toml"
    path.write_text('ram_bytes = "32M"\nguest = "tiny"\nappend = "a=\u00e9"\n')
    assert (await multiroot("vm", "run", "vm0", "--file", path)).out == "vm0 runs in root 1, epoch 1\n"
    first = json.loads((await multiroot("vm", "show", "vm0", "--json")).out)
    path.write_text((await multiroot("vm", "show", "vm0", "--toml")).out)
    assert (await multiroot("vm", "stop", "vm0")).code == 0
    assert (await multiroot("vm", "run", "--file", path)).code == 0
    again = json.loads((await multiroot("vm", "show", "vm0", "--json")).out)
    names = [field.name for field in fields(VmDefinition)]
    assert [again[name] for name in names] == [first[name] for name in names]
    assert (await multiroot("vm", "run", "vm1", "--file", path)).code == 0
    vms = json.loads((await multiroot("vm", "list", "--json")).out)
    assert len({vm["cards"][0]["mac"] for vm in vms}) == 2


async def test_what_is_no_file_changes_nothing(multiroot: Run, tmp_path: Path) -> None:
    path = tmp_path / "vm0.toml"
    path.write_text('name = "vm0"\nguest = "tiny"\nram_bytes = "32Q"\n')
    done = await multiroot("vm", "run", "--file", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"multiroot: {path}: ram_bytes: not a size: '32Q'")
    assert json.loads((await multiroot("vm", "list", "--json")).out) == []


async def test_console_without_following(multiroot: Run, manager: VmManager) -> None:
    await multiroot("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    await wait_for_ticks(manager.get("vm0"), 5)
    done = await multiroot("vm", "console", "vm0", "--no-follow")
    assert done.code == 0
    assert done.out.startswith("READY boot=0-1\n")


@pytest.mark.parametrize("words", [("--no-follow",), ("--history", "--no-follow")])
async def test_console_without_following_ends_where_nothing_was_said(
    multiroot: Run, set_faults: Callable[[str], Path], words: tuple[str, ...]
) -> None:
    set_faults("mute")
    await multiroot("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    async with asyncio.timeout(20):
        assert await multiroot("vm", "console", "vm0", *words) == Done(0, "", "")


async def test_handoff(multiroot: Run) -> None:
    done = await multiroot("handoff", "vm0")
    assert done.code == 0
    assert "70000 bytes of device state, 0 bytes of RAM copied, no vCPU ran for 42.5 ms" in done.out
    data = json.loads((await multiroot("handoff", "vm0", "--json")).out)
    assert (data["blackout_ms"], data["ram_bytes_copied"]) == (42.5, 0)


async def test_no_agent(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "multiroot.cli.main", "vm", "list",
        env={**os.environ, "MULTIROOT_AGENT": f"unix:{tmp_path}/nobody", "PYTHONPATH": str(REPO)},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 5
    assert b"does not answer" in err


async def test_a_vm_that_no_agent_knows_is_shown_by_what_the_arena_says(
    multiroot: Run, arena_path: Path
) -> None:
    arena = Arena(arena_path, 2)
    arena.allocate("db", 4 * MIB, 77)
    arena.close()
    (seen,) = json.loads((await multiroot("vm", "list", "--json")).out)
    assert (seen["name"], seen["state"], seen["owner"], seen["ram_bytes"]) == (
        "db",
        "unreachable",
        2,
        4 * MIB,
    )
    assert (seen["cpus"], seen["machine"], seen["cards"]) == (None, None, [])
    assert re.search(r"db +unreachable +2 +1 +4 MiB +- +- +-", (await multiroot("vm", "list")).out)
    refused = await multiroot("vm", "forget", "db")
    assert refused == Done(
        3,
        "",
        "multiroot: db is not lost: root 2, which owns it, lives (end it: multiroot vm stop db)\n",
    )
    assert "db" not in (await multiroot("vm", "list", "--root", "old")).out


async def test_arena_commands(multiroot: Run, arena_path: Path, tmp_path: Path) -> None:
    arena = Arena(arena_path, 2)
    arena.allocate("vm0", 4 * MIB, 77)
    arena.close()
    data = json.loads((await multiroot("arena", "show", "--device", arena_path, "--json")).out)
    assert data["extents"] == [
        {
            "name": "vm0",
            "kind": "vm",
            "offset": 2 * MIB,
            "size": 4 * MIB,
            "root": 2,
            "epoch": 1,
            "state": "owned",
            "definition": 77,
        }
    ]
    assert sum(gap["size"] for gap in data["free"]) == 122 * MIB
    assert "vm0" in (await multiroot("arena", "show", "--device", arena_path)).out
    refused = await multiroot("arena", "format", "--device", arena_path)
    assert refused.code == 3
    assert "not blank" in refused.err
    assert (await multiroot("arena", "format", "--device", arena_path, "--force")).code == 0
    assert (
        json.loads((await multiroot("arena", "show", "--device", arena_path, "--json")).out)["extents"] == []
    )
    absent = await multiroot("arena", "show", "--device", tmp_path / "absent")
    assert absent.code == 2
    assert "No such file" in absent.err
