# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from vm.conftest import SMALL, SetFaults, qmp_of

from multiroot.arena.arena import Arena, Entry
from multiroot.arena.layout import CANARY, Owner
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.rpc.server import make_server
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm.folder import VmRecord, folders
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_to_proto, ticks_from_proto
from multiroot.vm.process import Process
from multiroot.vm.qemu.command import Qemu
from multiroot.vm.qemu.vmm import QemuFactory, QemuVmm
from multiroot.vm.ticks import continuity
from multiroot.vm.vm_service import VmService


def nothing_left(host: Host) -> bool:
    return host.arena.entries() == [] and folders(host.run_dir) == []


def process_of(vm: Instance) -> Process:
    assert isinstance(vm.vmm, QemuVmm)
    assert vm.vmm.running
    return vm.vmm.running


async def test_run_and_stop(host: Host, manager: VmManager) -> None:
    vm = await manager.run(SMALL)
    assert vm.state is VmState.RUNNING
    assert manager.owner(vm) == Owner(1, 1)
    assert manager.running("vm0") is vm
    assert process_of(vm).running
    await manager.stop("vm0")
    assert not process_of(vm).running
    assert nothing_left(host)
    with pytest.raises(BadRequestError, match="no VM named 'vm0'"):
        manager.get("vm0")


async def test_duplicate_name(host: Host, manager: VmManager) -> None:
    vm = await manager.run(SMALL)
    with pytest.raises(ConflictError, match=r"already a VM vm0 \(running\)"):
        await manager.run(SMALL)
    assert manager.all() == [vm]
    assert [entry.name for entry in host.arena.entries()] == ["vm0"]


async def test_of_two_that_run_the_same_name_at_once_one_is_refused(
    host: Host, manager: VmManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing, go_on, allocate = threading.Event(), threading.Event(), host.arena.allocate

    def allocate_when_told(name: str, size: int, definition: int) -> Entry:
        preparing.set()
        assert go_on.wait(60)
        return allocate(name, size, definition)

    monkeypatch.setattr(host.arena, "allocate", allocate_when_told)
    first = asyncio.create_task(manager.run(SMALL))
    assert await asyncio.to_thread(preparing.wait, 60)
    with pytest.raises(ConflictError, match=r"already a VM vm0 \(starting\)"):
        await manager.run(SMALL)
    with pytest.raises(ConflictError, match="vm0 is just being started"):
        await manager.stop("vm0")  # its memory is just being prepared
    assert manager.strangers() == []
    go_on.set()
    assert (await first).state is VmState.RUNNING


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"guest": "absent"}, BadRequestError),
        ({"name": "VM"}, BadRequestError),
        ({"ram_bytes": 33 * MIB}, BadRequestError),
        ({"ram_bytes": 128 * MIB}, BadRequestError),
    ],
)
async def test_refused_before_anything_changes(
    host: Host, manager: VmManager, change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await manager.run(replace(SMALL, **change))  # type: ignore[arg-type]
    assert manager.all() == []
    assert nothing_left(host)


async def test_a_root_about_to_end_starts_no_vm(
    host: Host, manager: VmManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.door.shut()
    with pytest.raises(ConflictError, match="root 1 takes no VM any more: its update is committed"):
        await manager.run(SMALL)
    assert nothing_left(host)
    manager.door.open()
    allocate = host.arena.allocate

    def allocate_while_it_is_shut(*what: Any) -> Any:
        manager.door.shut()
        return allocate(*what)

    monkeypatch.setattr(host.arena, "allocate", allocate_while_it_is_shut)
    with pytest.raises(ConflictError, match="takes no VM any more"):
        await manager.run(SMALL)
    assert nothing_left(host)
    assert manager.all() == []


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ("exit", "unsupported machine"),
        ("die:query-version", "qemu did not start vm0"),
        ("refuse:migrate-set-capabilities", "not to be had"),
    ],
)
async def test_qemu_that_does_not_start_leaves_nothing(
    host: Host, manager: VmManager, set_faults: SetFaults, faults: str, words: str
) -> None:
    set_faults(faults)
    with pytest.raises(CommandError, match=words):
        await manager.run(SMALL)
    assert manager.all() == []
    assert nothing_left(host)
    set_faults("")
    await manager.run(SMALL)


async def test_no_qemu_at_all(host: Host) -> None:
    manager = VmManager(replace(host, vmm=QemuFactory(Qemu(Path("/nonexistent/qemu")))))
    with pytest.raises(CommandError, match="cannot run /nonexistent/qemu"):
        await manager.run(SMALL)
    assert nothing_left(host)


async def test_qemu_that_dies_is_noticed(manager: VmManager) -> None:
    vm = await manager.run(SMALL)
    os.kill(process_of(vm).pid, 9)
    await vm.ended()
    assert vm.state is VmState.FAILED
    assert vm.error.startswith("QEMU was killed by SIGKILL; ")
    assert "memory ran out" in vm.error
    with pytest.raises(ConflictError, match="does not run, it is failed"):
        manager.running("vm0")
    with pytest.raises(ConflictError, match=r"vm0 \(failed\)"):
        await manager.run(SMALL)
    await manager.stop("vm0")
    await manager.run(SMALL)


async def test_stop_gives_back_what_a_lost_qemu_left_in_the_arena(host: Host, manager: VmManager) -> None:
    host.arena.allocate("vm0", 32 * MIB, 1)
    with pytest.raises(ConflictError, match=r"already a VM vm0 \(failed\)"):
        await manager.run(SMALL)
    await manager.stop("vm0")
    assert nothing_left(host)
    with pytest.raises(BadRequestError, match="no VM named"):
        await manager.stop("vm0")


async def test_stop_leaves_other_roots_vms_alone(host: Host, manager: VmManager) -> None:
    owner = host.arena.allocate("vm0", 32 * MIB, 1).owner
    host.arena.take("vm0", owner, 2)
    with pytest.raises(ConflictError, match="owned by root 2"):
        await manager.stop("vm0")
    assert [entry.name for entry in host.arena.entries()] == ["vm0"]


async def test_a_new_agent_adopts_a_running_vm(host: Host, manager: VmManager) -> None:
    before = await manager.run(SMALL)
    await qmp_of(before).disconnect()  # as when the agent dies
    again = VmManager(host)
    await again.adopt()
    vm = again.running("vm0")
    assert process_of(vm).pid == process_of(before).pid
    assert vm.owner == Owner(1, 2)  # fences whoever the dead agent was handing it to
    await again.stop("vm0")
    assert nothing_left(host)


async def test_a_new_agent_ends_a_vmm_that_was_not_written_down_and_no_stranger(
    host: Host, manager: VmManager
) -> None:
    vm = await manager.run(SMALL)
    await qmp_of(vm).disconnect()
    (host.run_dir / "vm0/vm.json").unlink()  # as when the agent dies before it writes that
    # Somebody reads the log, and somebody writes to one of the same name.
    reader = subprocess.Popen(["tail", "-f", vm.folder.vmm_log], stdout=subprocess.DEVNULL)
    with (host.run_dir / "vmm.log").open("wb") as other:
        writer = subprocess.Popen(["sleep", "60"], stdout=other)
    try:
        again = VmManager(host)
        await again.adopt()
        assert await asyncio.wait_for(process_of(vm).wait(), 10) == -signal.SIGKILL
        assert (reader.poll(), writer.poll()) == (None, None)
    finally:
        for process in (reader, writer):
            process.kill()
            process.wait()
    assert folders(host.run_dir) == []
    assert again.all() == []
    assert [entry.name for entry in again.strangers()] == ["vm0"]
    await again.stop("vm0")
    assert nothing_left(host)


async def test_a_vm_that_was_given_back_unseen_has_failed_and_one_that_was_taken_unseen_is_handed(
    host: Host, manager: VmManager
) -> None:
    vm = await manager.run(SMALL)
    await process_of(vm).kill()
    await vm.ended()
    assert manager.get("vm0").state is VmState.FAILED
    taken = host.arena.take("vm0", vm.owner, 2)  # by a taker that had all of the state
    assert manager.get("vm0").state is VmState.HANDED
    host.arena.take("vm0", taken, 1)  # which could not run it
    found = manager.get("vm0")
    assert (found.state, found.owner) == (VmState.FAILED, Owner(1, 3))
    assert found.error == "root 1 owns it, and no VMM there runs it"
    await manager.stop("vm0")
    assert nothing_left(host)


async def test_a_new_agent_sees_that_qemu_is_gone(host: Host, manager: VmManager) -> None:
    vm = await manager.run(SMALL)
    await process_of(vm).kill()
    again = VmManager(host)
    await again.adopt()
    assert again.get("vm0").state is VmState.FAILED
    await again.stop("vm0")
    assert nothing_left(host)


async def test_a_new_agent_ends_what_another_root_owns(host: Host, manager: VmManager) -> None:
    vm = await manager.run(SMALL)
    host.arena.take("vm0", vm.owner, 2)
    again = VmManager(host)
    await again.adopt()
    await process_of(vm).wait()
    assert again.get("vm0").state is VmState.HANDED
    with pytest.raises(ConflictError, match="handed to root 2"):
        again.running("vm0")


async def test_a_new_agent_that_a_taker_overtakes_ends_what_it_found(
    host: Host, manager: VmManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await manager.run(SMALL)
    await qmp_of(vm).disconnect()
    adopt = Instance.adopt

    async def adopt_late(found: Instance, record: VmRecord) -> None:
        await adopt(found, record)
        host.arena.take("vm0", found.owner, 2)  # the taker of a handoff that the dead agent had begun

    monkeypatch.setattr(Instance, "adopt", adopt_late)
    again = VmManager(host)
    await again.adopt()
    assert again.get("vm0").state is VmState.HANDED
    await process_of(vm).wait()


async def test_busy(manager: VmManager) -> None:
    vm = await manager.run(SMALL)
    with vm.busy("handed over"), pytest.raises(ConflictError, match="just being handed over"):
        await manager.stop("vm0")
    await manager.stop("vm0")


class FakeDevices:
    """PCI functions of this root, all free; remembers which were made ready."""

    def __init__(self) -> None:
        self.acquired: list[str] = []
        self.arena: Arena | None = None
        self.stopped_for: list[list[str]] = []

    def stop_ended(self) -> None:
        assert self.arena
        self.stopped_for.append([entry.name for entry in self.arena.vms()])

    def acquire(self, function: str) -> str:
        self.acquired.append(function)
        return f"0000:{function}"


async def test_a_function_has_one_owner(host: Host) -> None:
    devices: Any = FakeDevices()
    manager = VmManager(replace(host, devices=devices))
    try:
        owner = await manager.run(replace(SMALL, functions=("01:00.0",)))
        assert owner.functions == ("0000:01:00.0",)
        with pytest.raises(ConflictError, match=r"01:00\.0 is owned by VM vm0"):
            await manager.run(replace(SMALL, name="vm1", functions=("01:00.0",)))
        await manager.run(replace(SMALL, name="vm2", functions=("02:00.0",)))
        assert devices.acquired == ["01:00.0", "02:00.0"]
        assert "host=0000:01:00.0," in command_line(owner)
    finally:
        for vm in manager.all():
            await vm.discard()


@pytest.mark.parametrize("verb", ["stop", "forget"])
async def test_what_a_lost_vm_owned_is_stopped_before_its_memory_is_free(
    host: Host, arena_path: Path, verb: str
) -> None:
    devices: Any = FakeDevices()
    arena = Arena(arena_path, 1, lambda root: root == 2)
    devices.arena = arena
    manager = VmManager(replace(host, arena=arena, devices=devices))
    host.arena.take("vm0", host.arena.allocate("vm0", 32 * MIB, 1).owner, 2)
    await getattr(manager, verb)("vm0")
    assert devices.stopped_for == [["vm0"]]
    assert nothing_left(host)
    host.arena.allocate("vm0", 32 * MIB, 1)  # one of this root's own is not lost
    await manager.stop("vm0")
    assert devices.stopped_for == [["vm0"]]
    arena.close()


async def test_a_root_that_has_no_devices_to_give(manager: VmManager) -> None:
    with pytest.raises(BadRequestError, match="this root has none to give"):
        await manager.run(replace(SMALL, functions=("01:00.0",)))


def command_line(vm: Instance) -> str:
    return Path(f"/proc/{process_of(vm).pid}/cmdline").read_text().replace("\0", " ")


@pytest.fixture
async def stub(manager: VmManager, tmp_path: Path):  # type: ignore[no-untyped-def]
    server = make_server(lambda name: True, lambda name: pytest.fail("no other root"))
    vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(manager), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield vm_pb2_grpc.VmServiceStub(channel)
    await server.stop(None)


async def test_service(stub: vm_pb2_grpc.VmServiceStub) -> None:
    request = vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL))
    vm = await stub.Run(request)
    assert (vm.state, vm.owner, vm.epoch) == ("running", 1, 1)
    assert [extent.size for extent in vm.extents] == [32 * MIB]
    assert (await stub.List(vm_pb2.ListVmsRequest())).vms == [vm]
    assert await stub.Get(vm_pb2.GetVmRequest(name="vm0")) == vm
    with pytest.raises(ConflictError, match="already a VM"), translated("agent"):
        await stub.Run(request)
    with pytest.raises(BadRequestError, match="no VM named 'vm1'"), translated("agent"):
        await stub.Get(vm_pb2.GetVmRequest(name="vm1"))
    await stub.Reset(vm_pb2.ResetVmRequest(name="vm0"))
    (notice,) = (await stub.Get(vm_pb2.GetVmRequest(name="vm0"))).notices
    assert notice.what == "the guest was reset"
    await stub.Remove(vm_pb2.RemoveVmRequest(name="vm0", force=True))
    assert not (await stub.List(vm_pb2.ListVmsRequest())).vms


async def test_a_users_vm_is_not_called_like_the_canary(stub: vm_pb2_grpc.VmServiceStub, host: Host) -> None:
    request = vm_pb2.RunVmRequest(definition=definition_to_proto(replace(SMALL, name=CANARY)))
    with pytest.raises(BadRequestError, match=f"the name {CANARY} is kept"), translated("agent"):
        await stub.Run(request)
    assert nothing_left(host)


async def test_of_a_vm_that_went_elsewhere_the_last_tick_is_told_too(
    stub: vm_pb2_grpc.VmServiceStub, manager: VmManager
) -> None:
    await stub.Run(vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL)))
    await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=5))
    vm = manager.get("vm0")
    vm.word.take(vm.owner, 2)
    await vm.end(VmState.HANDED)
    told = await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0"))
    with pytest.raises(ConnectionRefusedError):
        # The keeper, which writes the ticks down, has ended before they were told.
        await asyncio.open_unix_connection(vm.folder.console)
    assert len(told.counter) >= 5
    with pytest.raises(ConflictError, match="vm0 is handed and ticks no more"), translated("agent"):
        await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=1 << 20))


async def test_ticks_are_waited_for(stub: vm_pb2_grpc.VmServiceStub) -> None:
    await stub.Run(vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL)))
    ticks = await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=200))
    seen = continuity(ticks_from_proto(ticks).ticks)
    assert seen
    assert seen.seen >= 200
    assert seen.unbroken
    assert seen.first == 1


async def test_console_over_the_service(stub: vm_pb2_grpc.VmServiceStub) -> None:
    await stub.Run(vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL)))
    await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=5))
    call = stub.Console()
    await call.write(vm_pb2.ConsoleRequest(name="vm0", history=True))
    output = b""
    async for response in call:
        output += response.output
        if b"R 20 " in output:
            break
    call.cancel()
    assert output.startswith(b"READY boot=0-1\nT 1\nT 2\n")


async def test_console_of_a_vm_that_failed_shows_its_end(
    stub: vm_pb2_grpc.VmServiceStub, manager: VmManager
) -> None:
    await stub.Run(vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL)))
    await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=5))
    process = process_of(manager.get("vm0"))
    await process.kill()
    await asyncio.sleep(0)
    call = stub.Console()
    await call.write(vm_pb2.ConsoleRequest(name="vm0", history=True))
    output = b"".join([response.output async for response in call])
    assert output.startswith(b"READY")
