# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent says of a VM that another root owns, and what becomes of one whose root has ended."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import grpc.aio
import pytest

from multiroot.arena.layout import RESERVED, Owner
from multiroot.errors import BadRequestError, ConflictError, PeerLostError
from multiroot.rpc.server import ROOT_KEY
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm import attach
from multiroot.vm.folder import folders
from multiroot.vm.instance import Instance
from multiroot.vm.ticks import continuity, parse

from .harness import SMALL, Root, hand, process_of, start_vm

Roots = tuple[Root, Root]
NAME = SMALL.name


def stub_of(root: Root) -> vm_pb2_grpc.VmServiceAsyncStub:
    return vm_pb2_grpc.VmServiceStub(root.channel)


async def listed(root: Root, *, named: bool = False) -> list[tuple[str, str, int]]:
    """Name, state and owner of each VM, as this root's agent answers."""
    metadata = ((ROOT_KEY, str(root.number)),) if named else ()
    answer = await stub_of(root).List(vm_pb2.ListVmsRequest(), metadata=metadata)
    return [(vm.definition.name, vm.state, vm.owner) for vm in answer.vms]


@pytest.fixture
async def pair(roots: Roots) -> Roots:
    """Two roots that reach each other, and a VM that has gone from the first to the second."""
    old, new = roots
    old.peers[new.number], new.peers[old.number] = new.channel, old.channel
    await start_vm(old)
    await hand(old, new)
    return old, new


async def test_a_vm_has_one_row_wherever_it_is_and_whoever_is_asked(pair: Roots) -> None:
    old, new = pair
    for root in pair:
        assert await listed(root) == [(NAME, "running", 2)]
    await hand(new, old)
    for root in pair:
        assert await listed(root) == [(NAME, "running", 1)]
    assert await listed(new, named=True) == [(NAME, "handed", 1)]


async def test_a_vm_that_is_prepared_elsewhere_is_what_its_owner_says(
    pair: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    seen = []
    original = Instance.start

    async def start(vm: Instance, *, giver: Owner | None = None) -> None:
        seen.extend([await listed(old), await listed(new), await listed(old, named=True)])
        await original(vm, giver=giver)

    monkeypatch.setattr(Instance, "start", start)
    await hand(new, old)
    assert seen == [[(NAME, "running", 2)], [(NAME, "running", 2)], [(NAME, "incoming", 2)]]


async def test_calls_follow_a_vm_to_its_owner(pair: Roots) -> None:
    old, new = pair
    seen = await stub_of(old).Get(vm_pb2.GetVmRequest(name=NAME))
    assert (seen.state, seen.owner, seen.pid > 0) == ("running", 2, True)
    await stub_of(old).Stop(vm_pb2.StopVmRequest(name=NAME, force=True))
    assert await listed(old) == await listed(new) == []
    assert old.host.arena.entries() == []
    assert folders(old.host.run_dir) == folders(new.host.run_dir) == []


async def test_what_another_root_owns_is_not_this_ones_to_free(pair: Roots) -> None:
    old, _ = pair
    with pytest.raises(ConflictError, match="vm0 is not lost: root 2, which owns it, lives"):
        await old.manager.forget(NAME)
    with pytest.raises(ConflictError, match="owned by root 2") as told:
        await old.manager.stop(NAME)
    assert told.value.hint == "end it there: multiroot vm stop vm0 --force --root 2"
    with pytest.raises(ConflictError, match=r"already a VM vm0 \(in root 2\)"):
        await old.manager.run(SMALL)
    assert old.host.arena.find(NAME).owner == Owner(2, 2)


async def test_a_silent_root_keeps_its_vms(pair: Roots) -> None:
    old, new = pair
    # What answers there is no agent.
    old.peers[2] = grpc.aio.insecure_channel(f"unix:{new.host.run_dir}/nobody")
    assert await listed(old) == [(NAME, "unreachable", 2)]
    seen = await stub_of(old).Get(vm_pb2.GetVmRequest(name=NAME))
    assert (seen.state, seen.error) == ("unreachable", "root 2's agent does not answer")
    with pytest.raises(PeerLostError), translated("the agent"):
        await stub_of(old).Stop(vm_pb2.StopVmRequest(name=NAME, force=True))
    await old.peers[2].close()


async def ended(old: Root, new: Root) -> None:
    """The new root is gone with all that ran in it."""
    for vm in new.manager.all():
        await vm.vmm.end()
    old.ended.add(new.number)
    old.peers.clear()


@pytest.mark.parametrize("verb", ["stop", "forget"])
async def test_a_vm_that_was_lost_with_its_root_is_told_and_freed_and_its_name_used_again(
    pair: Roots, verb: str
) -> None:
    old, new = pair
    await ended(old, new)
    assert await listed(old) == [(NAME, "lost", 2)]
    seen = await stub_of(old).Get(vm_pb2.GetVmRequest(name=NAME))
    assert (seen.state, seen.error) == ("lost", "root 2, which owned it, has ended")
    with pytest.raises(ConflictError, match=r"already a VM vm0 \(lost\)") as told:
        await old.manager.run(SMALL)
    assert told.value.hint == "end it: multiroot vm forget vm0"
    with pytest.raises(ConflictError, match="it is lost"):
        old.manager.running(NAME)
    if verb == "stop":
        await stub_of(old).Stop(vm_pb2.StopVmRequest(name=NAME, force=True))
    else:
        await stub_of(old).Forget(vm_pb2.ForgetVmRequest(name=NAME))
    assert await listed(old) == []
    assert old.host.arena.entries() == []
    vm = await old.manager.run(SMALL)
    assert vm.owner == Owner(1, 3)  # above what the root that ended may still believe in


async def test_a_lost_vm_that_nobody_ever_knew_here_is_told_by_what_the_arena_says(pair: Roots) -> None:
    old, new = pair
    await asyncio.to_thread(new.host.arena.allocate, "db", 2 * MIB, 7)
    await asyncio.to_thread(new.host.arena.allocate, f"{RESERVED}tables", 2 * MIB, 0)
    assert await listed(old) == [("db", "failed", 2), (NAME, "running", 2)]
    await ended(old, new)
    assert await listed(old) == [("db", "lost", 2), (NAME, "lost", 2)]
    await old.manager.forget("db")
    with pytest.raises(BadRequestError, match="no VM named 'db'"):
        await old.manager.forget("db")
    with pytest.raises(BadRequestError, match="not a name for a VM"):
        await old.manager.forget(f"{RESERVED}tables")


async def seen_at_console(asked: Root, typed: list[bytes]) -> bytes:
    """All that one console shows from the guest's first byte to the VM's end, while the user types."""
    call = stub_of(asked).Console()
    await call.write(vm_pb2.ConsoleRequest(name=NAME, history=True))
    output = b""
    async for answer in call:
        output += answer.output
        for line in typed:
            await call.write(vm_pb2.ConsoleRequest(input=line))
        typed.clear()
    return output


@pytest.mark.parametrize("asked", [0, 1])
async def test_a_console_stays_with_its_vm_and_shows_everything_once(pair: Roots, asked: int) -> None:
    old, new = pair
    typed = [b"hello\n"]
    watching = asyncio.create_task(seen_at_console(pair[asked], typed))
    for giver, taker in ((new, old), (old, new), (new, old)):
        before = len((await giver.ticks()).counter)
        await giver.ticks(before + 20)
        await hand(giver, taker)
    await old.ticks(20)
    await stub_of(new).Stop(vm_pb2.StopVmRequest(name=NAME, force=True))
    output = await asyncio.wait_for(watching, 30)
    seen = continuity(parse([(0, output)]).ticks)
    assert seen
    assert seen.unbroken
    assert seen.seen > 60
    assert typed == []


async def until_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_console_says_so_when_the_vm_is_lost_with_its_root(
    pair: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    monkeypatch.setattr(attach, "LOOK_S", 0.05)
    call = stub_of(old).Console()
    await call.write(vm_pb2.ConsoleRequest(name=NAME, history=True))
    assert await call.read()
    for vm in new.manager.all():
        os.kill(process_of(vm).pid, signal.SIGSTOP)  # silent, as a root that died is
    old.ended.add(new.number)
    try:
        with pytest.raises(ConflictError, match="vm0 was lost with its root"), translated("the agent"):
            await until_end(call)
    finally:
        for vm in new.manager.all():
            os.kill(process_of(vm).pid, signal.SIGCONT)
