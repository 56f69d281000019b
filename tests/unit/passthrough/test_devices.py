# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that outlive roots: who inherits them, what of a handed function an agent remembers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anything import json_with, made_or_refused, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.arena.allocator import Extent
from multiroot.arena.backing import Kind
from multiroot.device.passthrough import Bar, Function, Translation, segment_of
from multiroot.device.uapi import Ecam
from multiroot.errors import ConflictError, MultirootError
from multiroot.passthrough import devices as module
from multiroot.passthrough.devices import TABLES, VERSION, Devices, DeviceState, Surroundings
from multiroot.passthrough.functions import DRIVER, Functions, rid_of
from multiroot.passthrough.messages import state_to_proto

ME, PEER, DEAD = 2, 3, 1
CARD, DISK = 0x100, 0x300
TABLES_EXTENT = Extent(0x400000, 16 << 20)
HANDED = "0100:01:00.0"
FUNCTION = Function(
    CARD, 0xB0100000, False, 0x8086, 0x10C9, 0, 0, 0x02000001, (Bar(0xFE800000, 0x20000, 0),) * 6
)


@dataclass
class Unit:
    """The module, as far as the owners of devices go."""

    owners: dict[int, int]
    peer: int = 0  # the other root that lives, which the module knows
    on: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def info(self) -> Any:
        return SimpleNamespace(
            on=self.on, tables=TABLES_EXTENT.offset, size=TABLES_EXTENT.size, capabilities=7
        )

    def owner(self, rid: int) -> int:
        return self.owners.get(rid, 0)

    def join(self, tables: int, size: int) -> None:
        self.on = True
        self.calls.append(("join", tables, size))
        self._inherit()

    def inherit(self) -> None:
        self.calls.append(("inherit",))
        self._inherit()

    def _inherit(self) -> None:
        self.owners = {rid: owner if owner == self.peer else ME for rid, owner in self.owners.items()}

    def device(self, rid: int, base: int, size: int) -> Translation:
        return Translation(self.owners[rid], 16, 0, 0, 0, 0, 0)


@dataclass
class Machine:
    """One root: its sysfs, its IOMMU, who else lives."""

    top: Path
    unit: Unit
    extents: dict[str, Extent] = field(default_factory=lambda: {TABLES: TABLES_EXTENT})
    removed: list[int] = field(default_factory=list)

    def show(self, address: str, card: str = "") -> None:
        folder = self.top / "bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "driver_override").write_text(f"{DRIVER}\n")
        driver = self.top / "bus/pci/drivers" / DRIVER
        driver.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(driver)
        if card:
            (folder / "physfn").symlink_to(f"../{card}")

    def devices(self) -> Devices:
        entries = [SimpleNamespace(name=name, extent=extent) for name, extent in self.extents.items()]
        arena: Any = SimpleNamespace(entries=lambda: entries, find=lambda _: entries[0])
        ecams = [Ecam(0xB0000000, 0, 255)]
        around = Surroundings(ME, lambda: ecams, self.top / "run", self.top / "acpi", self.top / "sysctl")
        unit: Any = self.unit
        pci: Any = SimpleNamespace(remove=self.removed.append)
        return Devices(arena, around, Functions(self.top), unit, pci)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(module, "load_modules", lambda: None)
    monkeypatch.setattr(module, "find_device", lambda: SimpleNamespace(physical=0, kind=Kind.DEVICE_DAX))
    return Machine(tmp_path, Unit({CARD: ME, DISK: DEAD}))


def test_a_root_that_is_alone_inherits_all_and_its_vms_functions_stay(machine: Machine) -> None:
    machine.show(HANDED)
    machine.show("0300:03:00.0")
    machine.devices().inherit()
    assert machine.removed == [segment_of(DISK)]
    assert machine.unit.owners == {CARD: ME, DISK: ME}
    unbound = machine.top / "bus/pci/drivers" / DRIVER / "unbind"
    assert unbound.read_text() == "0300:03:00.0"


def test_functions_of_this_roots_own_pci_are_left_alone(machine: Machine) -> None:
    machine.show("0000:03:00.0")
    machine.devices().inherit()
    assert machine.removed == []


def test_a_root_that_took_no_part_joins_to_inherit(machine: Machine) -> None:
    machine.unit.on = False
    machine.devices().inherit()
    assert machine.unit.calls == [("join", TABLES_EXTENT.offset, TABLES_EXTENT.size)]


@pytest.mark.parametrize(
    ("release", "panics", "refused"),
    [
        ("7.3.4+deb13-cloud-amd64", "1", True),
        ("6.15.0", "1", True),
        ("6.12.43+deb13-amd64", "1", False),
        ("7.3.4", "0", False),
    ],
)
def test_no_iommu_comes_where_the_kernel_would_panic_at_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, release: str, panics: str, refused: bool
) -> None:
    machine.extents.clear()
    machine.unit.on = False
    for file, text in {"acpi/DMAR": "", "sysctl/osrelease": release, "sysctl/panic_on_warn": panics}.items():
        (machine.top / file).parent.mkdir(exist_ok=True)
        (machine.top / file).write_text(f"{text}\n")
    # What is looked at next: a table that is none.
    with pytest.raises(MultirootError, match="it panics at a warning" if refused else "DMAR"):
        owned_by_vm(machine, CARD)
    assert machine.unit.calls == []


def test_without_tables_there_is_nothing_to_inherit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_modules", lambda: pytest.fail("modules loaded for nothing"))
    machine.extents.clear()
    machine.devices().inherit()
    assert machine.devices().staying() == {}


def test_devices_of_roots_that_have_ended_can_be_stopped_while_the_peer_lives(machine: Machine) -> None:
    machine.unit.peer = PEER
    machine.unit.owners[CARD] = PEER
    machine.devices().stop_ended()
    assert machine.unit.owners == {CARD: PEER, DISK: ME}
    machine.extents.clear()
    machine.unit.calls.clear()
    machine.devices().stop_ended()
    assert machine.unit.calls == []


def test_what_the_living_peer_owns_is_not_inherited(machine: Machine) -> None:
    machine.unit.peer = PEER
    machine.unit.owners[CARD] = PEER
    with pytest.raises(ConflictError, match="belongs to root 3"):
        owned_by_vm(machine, CARD)
    assert machine.unit.owners == {CARD: PEER, DISK: ME}


def test_an_arena_whose_pages_nobody_may_pin_is_refused_before_anything_changes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VFIO would refuse it later, when tables were made and the function had lost its driver."""
    monkeypatch.setattr(module, "find_device", lambda: SimpleNamespace(physical=0, kind=Kind.FILE))
    monkeypatch.setattr(module, "load_modules", lambda: pytest.fail("modules loaded for nothing"))
    with pytest.raises(ConflictError, match="a file of ext4 with DAX") as refused:
        owned_by_vm(machine, CARD)
    assert "/dev/multiroot-arena" in refused.value.hint
    with pytest.raises(ConflictError, match="a file of ext4 with DAX"):
        machine.devices().prepare("01:00.0", told())
    assert machine.unit.calls == []
    assert not (machine.top / "run").exists()


def owned_by_vm(machine: Machine, rid: int) -> str:
    """Make a function ready for a VM, one that needs no further check."""
    machine.show("0000:01:00.0")
    group = machine.top / "bus/pci/devices/0000:01:00.0/iommu_group/devices"
    group.mkdir(parents=True)
    (group.parent.parent / "config").write_bytes(msix())
    return machine.devices().acquire(f"{rid >> 8:02x}:00.0")


def msix() -> bytes:
    data = bytearray(0x100)
    data[6], data[0x34], data[0x40] = 0x10, 0x40, 0x11
    return bytes(data)


def test_a_device_that_a_dead_root_had_can_be_used_again(machine: Machine) -> None:
    machine.unit.peer = PEER
    machine.unit.owners[CARD] = DEAD
    assert owned_by_vm(machine, CARD) == "0000:01:00.0"
    assert machine.unit.owners[CARD] == ME


def test_virtual_functions_of_the_other_roots_vms_end_with_their_card(machine: Machine) -> None:
    machine.unit.owners = {0x180: PEER, 0x181: ME, CARD: PEER}
    machine.show("0000:01:10.0", card="0000:01:00.0")
    machine.show("0000:01:10.1", card="0000:01:00.0")
    machine.show("0000:01:10.2", card="0000:01:00.0")  # no VM ever had it
    machine.show("0000:01:00.0")
    assert machine.devices().staying() == {"0000:01:10.0": "0000:01:00.0"}


def told() -> DeviceState:
    """What a giver says of the card."""
    tables = TABLES_EXTENT
    return DeviceState(VERSION, FUNCTION, tables, tables.offset, 7, Translation(DEAD, 16, 0, 0, 0, 0, 0))


def test_an_agent_that_is_restarted_describes_a_handed_function_as_it_was_told(machine: Machine) -> None:
    machine.show(HANDED)
    assert machine.devices().prepare("01:00.0", told()) == HANDED
    # Nothing of it can be read from this root's sysfs.
    assert machine.devices().describe("01:00.0", Extent(0, 4096)).function == FUNCTION


GOOD = json.loads(json.dumps(asdict(FUNCTION)))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | (spoiled(GOOD) | json_with(*GOOD)).map(json.dumps).map(str.encode))
def test_whatever_is_kept_of_a_function_is_told_on_or_refused(machine: Machine, data: bytes) -> None:
    file = machine.top / "run" / f"{CARD:04x}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    found = made_or_refused(lambda: machine.devices().describe("01:00.0", Extent(0, 4096)))
    if isinstance(found, MultirootError):
        assert found.message.startswith(f"{file} is damaged: ")
    else:
        message = state_to_proto(found)
        assert message.rid == CARD


def test_a_damaged_account_of_a_function_says_when_it_can_be_removed(machine: Machine) -> None:
    file = machine.top / "run" / f"{CARD:04x}.json"
    file.parent.mkdir()
    file.write_text(json.dumps({**GOOD, "rid": DISK}))
    with pytest.raises(
        MultirootError, match=f"is damaged: it tells of function 0x300 .*no virtual.*`rm {file}`"
    ):
        machine.devices().describe("01:00.0", Extent(0, 4096))


def test_requester_ids_in_any_segment() -> None:
    assert rid_of(HANDED) == rid_of("0000:01:00.0") == CARD
