# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of NBD servers: what is asked of a server, and how its end and its return are noticed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from nbd_server import NbdServer as FakeServer

from multiroot.arena.arena import Arena
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import MIB
from multiroot.vm import claims, disk_servers, nbd
from multiroot.vm.definition import VmDefinition
from multiroot.vm.disk import Disk, NbdServer, parse_disks
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager
from multiroot.vm.qemu.notices import told

CONTENT = b"QFI\xfb".ljust(8 * MIB, b"\0")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with closing(FakeServer("d", CONTENT)) as made:
        yield made


def at(server: FakeServer, export: str = "d") -> NbdServer:
    return NbdServer("127.0.0.1", server.port, export)


def test_a_server_is_asked_for_its_disk(server: FakeServer) -> None:
    found = nbd.look(at(server), 512)
    assert (found.size, found.read_only, found.head) == (8 * MIB, False, CONTENT[:512])
    assert nbd.answers(at(server))
    with closing(FakeServer("", b"x" * 100, flags=2)) as small:
        assert nbd.look(at(small, ""), 4096) == nbd.Export(100, read_only=True, head=b"x" * 100)


def test_a_server_without_that_disk(server: FakeServer) -> None:
    with pytest.raises(BadRequestError, match=r"serves no disk of that name .*qemu-nbd --list"):
        nbd.look(at(server, "other"), 512)
    assert not nbd.answers(at(server, "other"))


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400\r\n\r\n", b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0", b"N"]
)
def test_what_is_no_such_server(greeting: bytes) -> None:
    with closing(FakeServer("d", b"", greeting=greeting)) as other:
        with pytest.raises(ConflictError, match=r"speaks no NBD|closed the connection"):
            nbd.look(at(other), 512)
        assert not nbd.answers(at(other))
        closed = at(other)
    with pytest.raises(ConflictError, match="does not answer: Connection refused"):
        nbd.look(closed, 512)


def test_whom_a_process_is_connected_with(server: FakeServer) -> None:
    here, there = at(server), NbdServer("::1", 9, "d")
    assert disk_servers.connected(os.getpid(), {here, there}) == set()
    with socket.create_connection(("127.0.0.1", server.port)):
        assert disk_servers.connected(os.getpid(), {here, there}) == {here}
        assert disk_servers.missing(os.getpid(), {here}) == set()
        # Another process's connection is not ours.
        assert disk_servers.connected(os.getppid(), {here}) == set()
        server.close()
        assert disk_servers.connected(os.getpid(), {here}) == set()
        assert disk_servers.missing(os.getpid(), {here, there}) == {here, there}
    assert disk_servers.connected(1 << 30, {here}) == set()


def test_addresses_as_the_kernel_writes_them() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        there = NbdServer("::1", port, "")
        assert disk_servers.connected(os.getpid(), {there}) == set(), "it listens, and is not connected"
        with socket.create_connection(("::1", port)):
            assert disk_servers.connected(os.getpid(), {there}) == {there}


async def test_a_vm_says_that_its_server_is_gone_and_that_it_is_back(
    host: Host, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_servers, "LOOK_S", 0.01)
    disks = parse_disks([f"nbd:127.0.0.1:{server.port}/d,format=qcow2"])
    manager = VmManager(host)
    vm = await manager.run(VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", disks=disks))
    name = f"nbd://127.0.0.1:{server.port}/d"
    await vm.check_servers()
    server.close()
    async with asyncio.timeout(30):
        while not vm.waits_for:
            await asyncio.sleep(0.01)
    assert vm.waits_for == (name,)
    with pytest.raises(ConflictError, match=f"vm0 waits for the server of its disk {name}"):
        await vm.check_servers()
    with closing(FakeServer("d", CONTENT, port=server.port)):
        async with asyncio.timeout(30):
            while vm.waits_for:
                await asyncio.sleep(0.01)
    gone, back, *_ = [notice.what for notice in vm.notices]
    assert gone == f"the server of the disk {name} is gone: what the guest does with it waits"
    assert back == f"the server of the disk {name} is back"
    await manager.stop("vm0")


async def test_what_is_wrong_with_a_servers_disk_changes_nothing(host: Host, server: FakeServer) -> None:
    manager = VmManager(host)
    wanted = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny")
    source = f"nbd:127.0.0.1:{server.port}/d"
    with closing(FakeServer("r", bytes(MIB), flags=2)) as read_only:
        for text, words in (
            (f"{source}x,format=qcow2", "serves no disk of that name"),
            (source, "is said to be raw, and there is qcow2 in it"),
            (f"nbd:127.0.0.1:{read_only.port}/r", "can't be written to"),
            (f"nbd:127.0.0.1:{read_only.port}/r,ro,format=qcow2", "there is no qcow2 in the disk"),
        ):
            with pytest.raises(BadRequestError, match=words):
                await manager.run(replace(wanted, disks=parse_disks([text])))
    with pytest.raises(ConflictError, match="does not answer"):
        await manager.run(replace(wanted, disks=parse_disks([f"nbd:127.0.0.1:{read_only.port}/r"])))
    assert host.arena.entries() == []


def test_a_servers_disk_is_one_vms_however_it_is_written(arena_path: Path) -> None:
    one, two = Arena(arena_path, 1), Arena(arena_path, 2)
    for arena, name in ((one, "a"), (two, "b")):
        arena.allocate(name, 32 * MIB, 7)
    first, second, other = (
        Disk(text).checked()
        for text in ("nbd:10.0.2.2:10809/d", "nbd://10.0.2.2/d", "nbd://10.0.2.2/" + "e" * 200)
    )
    claims.claim(one, "a", (first, other))
    with pytest.raises(ConflictError, match=r"the disk nbd://10.0.2.2:10809/d is VM a's, in root 1"):
        claims.claim(two, "b", (second,))


def test_a_request_that_failed_is_told() -> None:
    data = {"device": "", "node-name": "disk0", "operation": "write", "action": "stop", "reason": "No space"}
    assert told("BLOCK_IO_ERROR", data) == "disk0: a write failed: No space; the guest stands still"
    assert told("BLOCK_IO_ERROR", {**data, "action": "report"}) == "disk0: a write failed: No space"
