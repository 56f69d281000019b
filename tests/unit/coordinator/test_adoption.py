# SPDX-License-Identifier: GPL-2.0-or-later
"""Adopting CPUs, devices and memory of a root that has ended, on a machine of files and a fake device."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from anything import json_with, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.coordinator.adoption import Adoption, AdoptionContext, AdoptionState
from multiroot.device.uapi import CpuState, E820Range, Ledger, LedgerCpu, MemoryAction
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.storage.filesystems import Filesystem
from multiroot.units import MIB

BLOCK = 128 * MIB
ME, OLD = 2, 1
# 1 GiB of RAM: this root has the second half, the old one had the rest.
RAM = E820Range(0, 1024 * MIB, 1)
IOMEM = f"{512 * MIB:08x}-{1024 * MIB - 1:08x} : System RAM\n"


class Machine:
    """Stands in for /dev/multiroot and for what the kernel makes of it below /sys."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.calls: list[tuple[Any, ...]] = []
        self.parked_after = 0  # so many times `inherit` is asked too early
        self.inherit_until = threading.Event()  # the module waits for CPUs until then
        self.inherit_until.set()
        self.sums = 0
        self.root = ME
        self.dma = False  # a device still writes to the old root's memory
        self.cpus = {0: LedgerCpu(OLD, CpuState.PARKED), 1: LedgerCpu(ME, CpuState.ONLINE)}
        self._write("proc/iomem", IOMEM)
        self._write("sys/devices/system/memory/block_size_bytes", f"{BLOCK:x}")
        self._write("sys/devices/system/memory/auto_online_blocks", "online")
        self._write("sys/devices/system/cpu/cpu3/online", "0")

    def _write(self, path: str, text: str) -> None:
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        (self.top / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.top / "sys/devices/system" / path).read_text()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        # With the claim goes what it holds; one who only looks changes nothing.
        if ("claim",) in self.calls:
            self.calls.append(("close",))

    def claim(self) -> None:
        self.calls.append(("claim",))

    def inherit(self) -> bool:
        assert self.inherit_until.wait(5)
        self.parked_after -= 1
        return self.parked_after < 0

    def info(self) -> Any:
        return type("Info", (), {"root": self.root})

    def ledger(self) -> Ledger:
        return Ledger(next_root=3, roots_alive=1, boot_hardware_id=0, first_map=(RAM,), cpus=self.cpus)

    def adopt_cpu(self, hardware_id: int) -> Any:
        self.calls.append(("cpu", hardware_id))
        self.cpus[hardware_id] = LedgerCpu(ME, CpuState.ONLINE)
        return type("Cpu", (), {"cpu": 3})

    def adopt_pci(self, *function: int) -> None:
        self.calls.append(("pci", *function))

    def memory(self, action: MemoryAction, base: int, size: int) -> int:
        if action is MemoryAction.SUM:
            self.sums += 1
            return self.sums if self.dma else 0
        self.calls.append((action.name, base // MIB, size // MIB))
        if action is MemoryAction.ADD:
            for number in range(base // BLOCK, (base + size) // BLOCK):
                self._write(f"sys/devices/system/memory/memory{number}/state", "offline")
        return 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def adoption_on(
    machine: Machine, ended: bool = True, disk: bool = True, uplink: asyncio.Event | None = None
) -> Adoption:
    async def parent_ended(_: float) -> bool:
        return ended

    async def let_go() -> None:
        machine.calls.append(("let go",))

    async def way_out() -> bool:
        return uplink is not None and await uplink.wait()

    def mount(left: Sequence[Filesystem]) -> None:
        machine.calls.append(("mount", *(each.point for each in left)))
        if not disk:
            raise MultirootError("no disk of this root has it")

    return Adoption(
        AdoptionContext(
            Phases("root 2"),
            parent_ended,
            let_go,
            lambda: machine.calls.append(("inherit devices",)),
            mount,
            machine.top / "request",
            machine.top / "no-services",
            way_out=way_out,
            open_device=lambda: machine,  # type: ignore[arg-type, return-value]
            top=machine.top,
        )
    )


async def finish(adoption: Adoption) -> None:
    task: Any = adoption._task
    await task


async def test_everything_becomes_this_roots_in_order(machine: Machine) -> None:
    machine.parked_after = 2
    adoption = adoption_on(machine)
    adoption.begin()
    assert adoption.busy
    await finish(adoption)
    assert (adoption.state, adoption.error) == (AdoptionState.DONE, "")
    zeroed = [call for call in machine.calls if call[0] == "ZERO"]
    rest = [call for call in machine.calls if call[0] != "ZERO"]
    # The first MiB stays unused, and with it the first memory block.
    assert rest == [
        ("claim",),
        ("let go",),
        # Guests wait for their disks and their way out, and for no CPU.
        ("inherit devices",),
        ("pci",),
        ("cpu", 0),
        ("ADD", 128, 384),
        ("close",),
    ]
    assert sum(size for _, _, size in zeroed) == 384
    assert machine.calls.index(zeroed[-1]) < machine.calls.index(("ADD", 128, 384))
    assert machine.read("cpu/cpu3/online") == "1"
    assert machine.read("memory/auto_online_blocks") == "offline"
    assert [machine.read(f"memory/memory{number}/state") for number in (1, 2, 3)] == ["online_movable"] * 3
    assert not (machine.top / "request").exists()


async def test_a_cpu_that_does_not_come_keeps_no_disk_away(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stays_away(hardware_id: int) -> None:
        raise ConflictError(f"CPU {hardware_id} does not come online")

    monkeypatch.setattr(machine, "adopt_cpu", stays_away)
    adoption = adoption_on(machine)
    adoption.begin(left=[SRV])
    await finish(adoption)
    assert (adoption.state, adoption.error) == (AdoptionState.FAILED, "CPU 0 does not come online")
    assert ("mount", SRV.point) in machine.calls
    assert not [call for call in machine.calls if call[0] == "ZERO"]


async def test_cpus_come_also_where_a_device_can_not(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: int) -> None:
        raise ConflictError("cannot adopt PCI devices")

    monkeypatch.setattr(machine, "adopt_pci", fails)
    adoption = adoption_on(machine)
    adoption.begin()
    await finish(adoption)
    assert (adoption.state, adoption.error) == (AdoptionState.FAILED, "cannot adopt PCI devices")
    assert ("cpu", 0) in machine.calls


async def test_vms_are_served_while_the_module_waits_for_cpus(machine: Machine) -> None:
    machine.inherit_until.clear()
    adoption = adoption_on(machine)
    adoption.begin()
    # What a call to this agent would be.
    asyncio.get_running_loop().call_later(0.05, machine.inherit_until.set)
    await finish(adoption)
    assert (adoption.state, adoption.error) == (AdoptionState.DONE, "")


async def test_the_machines_first_root_has_nothing_to_wait_for(machine: Machine) -> None:
    machine.root = OLD
    adoption = adoption_on(machine)
    with pytest.raises(ConflictError, match="the machine's first root"):
        adoption.begin()
    assert (adoption.busy, adoption.state) == (False, AdoptionState.NONE)
    assert not (machine.top / "request").exists()


async def test_nothing_is_touched_while_the_old_root_lives(machine: Machine) -> None:
    adoption = adoption_on(machine, ended=False)
    adoption.begin()
    await finish(adoption)
    assert adoption.state is AdoptionState.FAILED
    assert "did not end" in adoption.error
    assert machine.calls == [("claim",), ("close",)]
    assert (machine.top / "request").exists(), "a later agent tries again"


async def test_memory_that_a_device_still_writes_to_is_not_used(machine: Machine) -> None:
    machine.dma = True
    adoption = adoption_on(machine)
    adoption.begin(verify=True)
    await finish(adoption)
    assert adoption.state is AdoptionState.FAILED
    assert "something still writes to" in adoption.error
    assert not (machine.top / "sys/devices/system/memory/memory1").exists()


async def test_named_functions_come_in_the_order_of_their_numbers(machine: Machine) -> None:
    adoption = adoption_on(machine)
    adoption.begin(devices=["0000:01:00.1", "01:00.0", "0000:00:02.0"])
    await finish(adoption)
    assert [call for call in machine.calls if call[0] == "pci"] == [
        ("pci", 0x10),
        ("pci", 0x100),
        ("pci", 0x101),
    ]


async def test_a_successor_of_the_agent_goes_on_with_the_same_request(machine: Machine) -> None:
    first = adoption_on(machine)
    first.begin(devices=["01:00.0"])
    task: Any = first._task
    task.cancel()
    await asyncio.wait({task})
    second = adoption_on(machine)
    second.resume()
    await finish(second)
    assert second.state is AdoptionState.DONE
    assert [call for call in machine.calls if call[0] == "pci"] == [("pci", 0x100)]
    assert not (machine.top / "request").exists()


async def test_what_is_no_address_changes_nothing(machine: Machine) -> None:
    adoption = adoption_on(machine)
    with pytest.raises(BadRequestError, match="not a PCI address"):
        adoption.begin(devices=["eth0"])
    assert adoption.state is AdoptionState.NONE
    assert not (machine.top / "request").exists()


GOOD = {"verify": True, "devices": ["0000:01:00.1", "01:00.0"]}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | (spoiled(GOOD) | json_with(*GOOD)).map(json.dumps).map(str.encode))
def test_an_agent_starts_with_any_request_that_is_left(tmp_path: Path, data: bytes) -> None:
    """It obeys it or tells why not."""
    (tmp_path / "request").write_bytes(data)

    async def start() -> None:
        adoption = adoption_on(Machine(tmp_path), ended=False)
        adoption.resume()
        if adoption.busy:
            await finish(adoption)
            assert "did not end" in adoption.error
        else:
            assert adoption.error.startswith(f"{tmp_path / 'request'} is damaged: ")
        assert adoption.state is AdoptionState.FAILED

    asyncio.run(start())


@pytest.mark.parametrize("text", ["", '{"verify": true, "devi', "[]", '{"verify": 1, "devices": ["eth0"]}'])
async def test_a_damaged_request_is_told_and_another_one_is_taken(
    machine: Machine, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    request = machine.top / "request"
    request.write_text(text)
    adoption = adoption_on(machine)
    adoption.resume()
    assert (adoption.state, adoption.busy) == (AdoptionState.FAILED, False)
    assert adoption.error.startswith(f"{request} is damaged: ")
    assert adoption.error.endswith("(ask again: `multiroot root adopt`)")
    assert caplog.messages == [f"taking over: {adoption.error}"]
    assert machine.calls == [], "nothing is adopted by a request that nobody understands"
    adoption.begin()
    assert json.loads(request.read_text()) == {"verify": False, "devices": [], "left": []}
    await finish(adoption)
    assert (adoption.state, adoption.error) == (AdoptionState.DONE, "")


async def test_a_request_that_cannot_be_kept_is_refused_and_the_one_before_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = adoption_on(machine, ended=False)
    first.begin(devices=["01:00.0"])
    await finish(first)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(MultirootError, match=r"cannot write .*request: No space left"):
            first.begin()
        second = adoption_on(machine)
        second.resume()  # needs no room
    await finish(second)
    assert [call for call in machine.calls if call[0] == "pci"] == [("pci", 0x100)]


def test_no_request_is_nothing_to_do(machine: Machine) -> None:
    adoption = adoption_on(machine)
    adoption.resume()
    assert (adoption.state, adoption.error) == (AdoptionState.NONE, "")


SRV = Filesystem("0b1c", "ext4", "/srv", "rw,relatime")


async def test_the_vms_disks_are_mounted_behind_the_devices(machine: Machine) -> None:
    adoption = adoption_on(machine)
    adoption._phases.add(Phase(PhaseName.STOP_DISKS, "root 1", adoption._phases.clock() - 5_000_000, 1_000))
    adoption.begin(left=[SRV])
    await finish(adoption)
    steps = [call[0] for call in machine.calls]
    assert steps.index("pci") < steps.index("mount")
    assert ("mount", "/srv") in machine.calls
    (away,) = [each for each in adoption._phases.finished if each.name == PhaseName.DISKS_AWAY]
    assert away.duration_ns is not None
    assert away.duration_ns >= 5_000_000


async def test_how_long_the_uplink_was_away_is_told_when_it_is_back_and_kept_waiting_for_by_nobody(
    machine: Machine,
) -> None:
    uplink = asyncio.Event()
    adoption = adoption_on(machine, uplink=uplink)
    phases = adoption._phases
    phases.add(Phase(PhaseName.UNBIND_DRIVERS, "root 1", phases.clock() - 5_000_000, 1_000))
    adoption.begin()
    await finish(adoption)
    assert adoption.state is AdoptionState.DONE
    assert not [each for each in phases.finished if each.name == PhaseName.UPLINK_AWAY]
    uplink.set()
    noting: Any = adoption._noting
    await noting
    (away,) = [each for each in phases.finished if each.name == PhaseName.UPLINK_AWAY]
    assert (away.duration_ns or 0) >= 5_000_000


async def test_without_an_uplink_nothing_is_told_of_one(machine: Machine) -> None:
    adoption = adoption_on(machine)
    adoption._phases.add(Phase(PhaseName.UNBIND_DRIVERS, "root 1", adoption._phases.clock(), 1_000))
    adoption.begin()
    await finish(adoption)
    noting: Any = adoption._noting
    await noting
    assert not [each for each in adoption._phases.finished if each.name == PhaseName.UPLINK_AWAY]


async def test_a_disk_that_is_not_found_keeps_nothing_else_from_being_adopted(machine: Machine) -> None:
    adoption = adoption_on(machine, disk=False)
    adoption.begin(left=[SRV])
    await finish(adoption)
    assert adoption.state is AdoptionState.DONE
    assert ("mount", "/srv") in machine.calls
    assert not [each for each in adoption._phases.finished if each.name == PhaseName.DISKS_AWAY]


async def test_a_successor_mounts_what_its_predecessor_was_told(machine: Machine) -> None:
    first = adoption_on(machine)
    first.begin(left=[SRV])
    first._task.cancel()  # type: ignore[union-attr]
    second = adoption_on(machine)
    second.resume()
    await finish(second)
    assert ("mount", "/srv") in machine.calls
