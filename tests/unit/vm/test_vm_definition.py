# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.cli import vm as cli
from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import GIB, MIB
from multiroot.vm.definition import Card, VmDefinition
from multiroot.vm.disk import Disk
from multiroot.vm.fields import (
    Option,
    as_text,
    described,
    from_data,
    from_file,
    options,
    to_data,
    to_file,
    to_message,
    with_options,
)
from multiroot.vm.messages import definition_from_proto, definition_to_proto

DISK = Disk("pmem:0x1c0000000")
BOOTS: dict[str, Any] = {"firmware": "seabios", "disks": (DISK,)}
GOOD = VmDefinition("vm0", cards=(Card(address="10.77.1.1/16"),)).checked()


def test_defaults_are_filled_in() -> None:
    assert GOOD.ram_bytes == 256 * MIB
    assert GOOD.card.mac.startswith("52:54:00:")
    assert GOOD.checked() == GOOD
    assert VmDefinition("vm1").checked().card.mac != GOOD.card.mac


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "not a name"),
        ({"name": "Vm0"}, "not a name"),
        ({"name": "../x"}, "not a name"),
        ({"name": "-x"}, "not a name"),
        ({"name": "x" * 33}, "not a name"),
        ({"name": "vm0\n"}, "not a name"),
        ({"name": ".iommu-tables"}, "not a name"),
        ({"ram_bytes": 256 * MIB + 4096}, "multiple of 2 MiB"),
        ({"ram_bytes": 8 * MIB}, "too little"),
        ({"ram_bytes": -5}, "^-5 B of memory is too little"),
        ({"cpus": 0}, "0 CPUs"),
        ({"cpus": 256}, "256 CPUs"),
        ({"cpu": "host,svm"}, "not a CPU feature: 'svm'"),
        ({"machine": "pc"}, "no machine called 'pc'"),
        ({"machine": ""}, "no machine"),
        ({"machine": "q35,"}, "not a machine option"),
        ({"machine": "q35,memory-backend=other"}, "not yours to set"),
        ({"machine": "q35,suppress-vmdesc=off"}, "not yours to set"),
        ({"machine": "q35,type=microvm"}, "not yours to set"),
        ({"machine": "q35,firmware=bios-256k.bin"}, "not yours to set"),
        ({"machine": "q35,hpet=on,hpet=off"}, "hpet is given twice"),
        ({"machine": "q35,hpet=on -nographic"}, "not a machine option"),
        ({"guest": "../../etc"}, "not a guest"),
        ({"append": "a\nb"}, "not printable"),
        ({"cards": (Card(mac="52:54:00:00:00"),)}, "not a MAC"),
        ({"cards": (Card(mac="01:00:5e:00:00:01"),)}, "not a MAC"),
        ({"cards": (Card(mac="00:00:00:00:00:00"),)}, "not a MAC"),
        ({"cards": (Card(), Card(mac="00:00:00:00:00:00"))}, "not a MAC"),
        ({"cards": (Card(address="10.77.1.1"),)}, "prefix length"),
        ({"cards": (Card(address="10.77.1/16"),)}, "not an IPv4"),
        ({"cards": (Card(address="fe80::1/64"),)}, "not an IPv4"),
        ({"cards": (Card(),) * 9}, "cannot have 9 network cards"),
        (
            {"cards": (Card(address="10.77.3.2/16"),)},
            "10.77.3.2: it is the workstation's",
        ),
        ({"cards": (Card(address="10.77.2.1/16"),)}, "it is that of a root's bridge"),
        ({"cards": (Card(address="10.77.0.1/16"),)}, "it is on the roots' own network"),
        ({"cards": (Card(address="10.77.255.255/16"),)}, "it means all of the network 10.77.0.0/16"),
        ({"cards": (Card(address="0.0.0.0/0"),)}, "is no address of a station"),
        ({"cards": (Card(address="127.0.0.1/8"),)}, "is no address of a station"),
        ({"cards": (Card(mac="52:54:00:00:00:01"), Card(mac="52:54:00:00:00:01"))}, "have the MAC address"),
        ({"cards": (Card(address="10.77.1.1/16"), Card(address="10.77.1.1/24"))}, "have the address"),
        ({"cards": (Card(queues=2),)}, "cannot have 2 queues"),
        ({"cards": (Card(queues=0),)}, "cannot have 0 queues"),
        ({"firmware": "bios"}, "no firmware called 'bios'"),
        ({"firmware": "coreboot"}, "no firmware called 'coreboot'"),
        ({"firmware": "seabios", "disks": (DISK,), "append": "x"}, "for a kernel that is given directly"),
        ({**BOOTS, "kernel": "/boot/vmlinuz"}, "seabios starts what is on the disk"),
        ({"firmware": "seabios", "machine": "microvm"}, "only a q35 machine can have disks"),
        ({"disks": (DISK,), "machine": "microvm"}, "only a q35 machine can have disks"),
        ({"disks": (Disk("/root/x.raw"),)}, "a file is there in one root only: '/root/x.raw'"),
        ({"disks": (Disk(""),)}, "not a disk that every root reaches: ''"),
        ({"disks": (Disk("pmem:0xfffffffffffff", "ide"),)}, "no bus for disks called 'ide'"),
        ({"disks": (DISK, Disk("pmem:0x01C0000000"))}, "the disk pmem:0x1c0000000 is given twice"),
        ({"disks": tuple(Disk(f"pmem:{at:#x}") for at in range(9))}, "cannot have 9 disks"),
        ({"boot_order": ("disk0",)}, "a boot order is for a firmware"),
        ({"boot_order": ("disk0",), "firmware": "seabios"}, "a boot order is for a firmware"),
        ({**BOOTS, "boot_order": ("disk1",)}, "vm0 has no disk 'disk1'"),
        ({**BOOTS, "boot_order": ("disk0", "disk0")}, "disk0 is twice in the boot order"),
        ({"user_data": "hostname: web"}, "user-data does not say what it is"),
        ({"user_data": "#!", "machine": "microvm"}, "only a q35 machine can have disks"),
        ({"watchdog": "bark"}, "a watchdog's action can't be 'bark'"),
        ({"watchdog": "pause"}, "a watchdog's action can't be 'pause'"),
        ({"watchdog": "reset", "machine": "microvm"}, "only a q35 machine can have a watchdog"),
        ({"functions": ("1",)}, "not a PCI address: '1'"),
        ({"functions": ("01:00.0", "02:00.0")}, "cannot own 2 PCI functions"),
        ({"functions": ("01:00.0",), "machine": "microvm"}, "only a q35 machine"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        replace(GOOD, **change).checked()


# A value of each field that is not its default: a field that is added belongs here too.
OTHERS: dict[str, Any] = {
    "name": "vm1",
    "ram_bytes": GIB,
    "cpus": 2,
    "cpu": "base,lm=on",
    "machine": "q35,hpet=on",
    "guest": "ticker-card",
    "kernel": "/boot/vmlinuz",
    "initrd": "/boot/initrd.img",
    "append": "ticker.region=8",
    "firmware": "seabios",
    "disks": (Disk("pmem:0x1c0000000", "virtio-scsi"), Disk("pmem:0x1d0000000")),
    "boot_order": ("disk1", "disk0"),
    "cards": (Card("52:54:00:00:00:07", "10.77.1.7/16", 2), Card("52:54:00:00:00:08")),
    "functions": ("01:00.0",),
    "watchdog": "reset",
    "user_data": "#!/bin/true\n",
}
OTHER = VmDefinition(**OTHERS)


def test_every_field_counts_in_the_checksum() -> None:
    sums = {GOOD.checksum()}
    for field in fields(GOOD):
        sums.add(replace(GOOD, **{field.name: OTHERS[field.name]}).checksum())
    assert len(sums) == 1 + len(fields(GOOD))
    # What is on a disk has its own kernel, and nobody here knows its parameters.
    complete = replace(OTHER, append="", kernel="", initrd="")
    assert complete.checked() == complete


def test_messages_json_and_files_carry_every_field() -> None:
    assert [field.name for field in fields(OTHER) if field.default == OTHERS[field.name]] == []
    for each in (OTHER, GOOD, VmDefinition("vm0")):
        assert definition_from_proto(definition_to_proto(each)) == each
        assert from_data(json.loads(json.dumps(to_data(each))), VmDefinition) == each
        assert list(to_file(each)) == [field.name for field in fields(VmDefinition)]
        assert from_file(json.loads(json.dumps(to_file(each))), VmDefinition) == each


def test_every_field_can_be_given_to_vm_run(tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text("#!/bin/true\n")
    told = [
        ("--memory", "1G"),
        ("--cpus", "2"),
        ("--cpu", "base,lm=on"),
        ("--machine", "q35,hpet=on"),
        ("--firmware", "seabios"),
        ("--disk", "pmem:0x1c0000000,bus=virtio-scsi"),
        ("--disk", "pmem:0x1d0000000"),
        ("--boot-order", "disk1,disk0"),
        ("--guest", "ticker-card"),
        ("--kernel", "/boot/vmlinuz"),
        ("--initrd", "/boot/initrd.img"),
        ("--append", "ticker.region=8"),
        ("--mac", "52:54:00:00:00:07"),
        ("--address", "10.77.1.7/16"),
        ("--queues", "2"),
        ("--card", "mac=52:54:00:00:00:08"),
        ("--device", "01:00.0"),
        ("--watchdog", "reset"),
        ("--user-data", str(tmp_path / "user-data")),
    ]
    assert {flag for flag, _ in told} == {option.flag for option in options(VmDefinition)}
    words = [word for pair in told for word in pair]
    context = cli.run.make_context("run", ["vm1", *words])
    given = {key: value for key, value in context.params.items() if key not in ("root", "as_json")}
    name = given.pop("name")
    assert with_options(VmDefinition(name), given) == OTHER
    plain = cli.run.make_context("run", ["vm0"]).params
    assert with_options(VmDefinition("vm0"), plain) == VmDefinition("vm0")
    assert with_options(OTHER, {**plain, "device": ""}) == VmDefinition("vm1")


def test_a_disk_is_the_same_however_it_is_written() -> None:
    written = (Disk("PMEM:0x01C0000000", "cd"), Disk("pmem:0x1d0000000", read_only=True))
    made = replace(GOOD, disks=written).checked()
    assert made.disks == (Disk("pmem:0x1c0000000", "cd", True), Disk("pmem:0x1d0000000", read_only=True))
    assert made.checked() == made
    assert made.disks[0].address == 0x1C0000000


@pytest.mark.parametrize("key", [option.key for option in options(VmDefinition)])
def test_an_option_changes_its_field_and_no_other(key: str) -> None:
    typed = {option.key: option.default for option in options(VmDefinition)}
    assert with_options(OTHER, {}) == OTHER
    changed = with_options(OTHER, {key: typed.pop(key)})
    assert changed != OTHER
    assert with_options(changed, typed) == VmDefinition("vm1")


def test_options_mean_the_first_card() -> None:
    two = VmDefinition("vm0", cards=(Card(mac="a"), Card(mac="b")))
    assert with_options(two, {"address": "x"}).cards == (Card("a", "x"), Card("b"))
    none = VmDefinition("vm0", cards=())
    assert with_options(none, {"cpus": 2}).cards == ()
    assert with_options(none, {"mac": "c"}).cards == (Card("c"),)


@pytest.mark.parametrize(
    ("words", "card"),
    [
        ("", Card()),
        ("queues=4,mac=52:54:00:00:00:08", Card("52:54:00:00:00:08", queues=4)),
        ("address=10.77.1.7/16", Card(address="10.77.1.7/16")),
    ],
)
def test_one_more_card(words: str, card: Card) -> None:
    assert with_options(GOOD, {"card": (words,)}).cards == (*GOOD.cards, card)


@pytest.mark.parametrize("words", ["mac", "queues=x", "queues=", "speed=10", "52:54:00:00:00:08"])
def test_what_is_no_card(words: str) -> None:
    with pytest.raises(BadRequestError):
        with_options(GOOD, {"card": (words,)}).checked()


@pytest.mark.parametrize(
    ("flag", "text", "name"),
    [
        ("--card", "address=10.77.1.1/16,address=10.77.1.2/16", "address"),
        ("--disk", "pmem:0x1c0000000,bus=cd,bus=virtio-blk", "bus"),
        ("--disk", "pmem:0x1c0000000,ro,ro", "ro"),
        ("--machine", "q35,hpet=on,hpet=off", "hpet"),
        ("--cpu", "EPYC,svm=on,svm=off", "svm"),
    ],
)
def test_a_word_that_is_given_twice_means_neither(flag: str, text: str, name: str) -> None:
    (option,) = [each for each in options(VmDefinition) if each.flag == flag]
    given = {option.key: [text] if option.multiple else text}
    with pytest.raises(BadRequestError, match=f"^{name} is given twice: '{text}'"):
        with_options(VmDefinition("web"), given).checked()


def test_a_mac_made_from_the_name_follows_it() -> None:
    assert GOOD.called("vm0") == GOOD
    assert (
        GOOD.called("vm1").checked() == VmDefinition("vm1", cards=(Card(address="10.77.1.1/16"),)).checked()
    )
    assert OTHER.called("vm2") == replace(OTHER, name="vm2")


def test_vm_show_has_every_field() -> None:
    shown = cli.vm_json(vm_pb2.Vm(definition=definition_to_proto(OTHER)))
    assert {field.name for field in fields(OTHER)} <= set(shown)
    text = " ".join(as_text(value) for value in shown.values())
    for word in ("52:54:00:00:00:07", "10.77.1.7/16", "01:00.0", "ticker.region=8"):
        assert word in text


@dataclass(frozen=True)
class Longer(VmDefinition):
    """A definition with a field more, as the next one who adds a field has it before all else."""

    extra: str = described("", Option("--extra", "More."))


def test_a_field_that_a_message_lacks_is_noticed() -> None:
    with pytest.raises(ValueError, match="VmDefinition has no field extra"):
        to_message(Longer("vm0"), vm_pb2.VmDefinition)
    with pytest.raises(BadRequestError, match="extra: no such key"):
        from_data(to_data(Longer("vm0")), VmDefinition)


def test_a_field_that_is_added_is_in_files_and_options_by_itself() -> None:
    assert "--extra" in [option.flag for option in options(Longer)]
    assert with_options(Longer("vm0"), {"extra": "x"}) == Longer("vm0", extra="x")
    assert to_file(Longer("vm0", extra="x"))["extra"] == "x"
    assert from_file({"name": "vm0", "extra": "x"}, Longer) == Longer("vm0", extra="x")


def test_a_vm_without_cards_is_one_in_every_root() -> None:
    none = VmDefinition("vm0", cards=())
    assert definition_from_proto(definition_to_proto(none)) == none
    assert definition_from_proto(vm_pb2.VmDefinition(name="vm0")) == VmDefinition("vm0")


@given(st.text(min_size=1), st.integers(1, 1 << 40), st.integers(1, 255), st.lists(st.text(min_size=1)))
def test_messages_carry_any_value(name: str, ram: int, cpus: int, functions: list[str]) -> None:
    definition = VmDefinition(name, ram, cpus, functions=tuple(functions))
    assert definition_from_proto(definition_to_proto(definition)) == definition


@pytest.mark.parametrize(
    "field", [{"cpus": 1 << 40}, {"cpus": -1}, {"ram_bytes": 1 << 70}, {"append": "\udcff"}]
)
def test_what_no_message_can_hold_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="cannot be"):
        definition_to_proto(VmDefinition("vm0", **field))
