# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and machines that `bench handoff` measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiroot.bench.handoff import Kind, Options, definition_fields, in_turns, with_disk
from multiroot.cli.bench import parse_machines
from multiroot.errors import BadRequestError
from multiroot.lab import lab as labs
from multiroot.units import GIB, MIB
from multiroot.vm.definition import VmDefinition


@pytest.mark.parametrize(
    ("ram", "machine", "labels"),
    [
        ((128 * MIB,), ("q35",), [""]),
        ((128 * MIB, 2 * GIB), ("q35",), ["128 MiB", "2 GiB"]),
        ((128 * MIB,), ("q35", "microvm"), ["q35", "microvm"]),
        (
            (128 * MIB, 2 * GIB),
            ("q35", "microvm"),
            ["128 MiB q35", "128 MiB microvm", "2 GiB q35", "2 GiB microvm"],
        ),
    ],
)
def test_kinds_are_labelled_by_what_they_do_not_share(
    ram: tuple[int, ...], machine: tuple[str, ...], labels: list[str]
) -> None:
    options = Options(labs.Options(), ram=ram, machine=machine)
    assert [kind.label for kind in options.kinds()] == labels
    assert options.kinds()[-1] == Kind(ram[-1], machine[-1], labels[-1])
    # Ours, two places for those that share a VM, and three ways that need a VM of their own.
    assert options.arena == 6 * sum(kind.ram for kind in options.kinds())
    ours = Options(labs.Options(), contenders=("multi-root", "postcopy"), ram=ram, machine=machine)
    assert ours.arena == 4 * sum(kind.ram for kind in ours.kinds())


def test_a_guest_that_dirties_memory_needs_room_for_it() -> None:
    Options(labs.Options(), ram=(256 * MIB,), dirty=40).checked()
    with pytest.raises(BadRequestError, match="256M"):
        Options(labs.Options(), ram=(2 * GIB, 128 * MIB), dirty=40).checked()


@pytest.mark.parametrize(
    ("text", "machines"),
    [
        ("q35", ("q35",)),
        ("q35,microvm", ("q35", "microvm")),
        ("q35,hpet=on,smm=on,microvm,rtc=on", ("q35,hpet=on,smm=on", "microvm,rtc=on")),
    ],
)
def test_machines_keep_their_options(text: str, machines: tuple[str, ...]) -> None:
    assert parse_machines(text) == machines


def test_a_debian_has_a_firmware_a_disk_and_enough_memory() -> None:
    options = Options(labs.Options(), guest=("ticker", "debian"), contenders=("multi-root", "in-place"))
    ticker, debian = options.checked().kinds()
    assert (ticker.label, debian.label) == ("ticker", "debian")
    assert (debian.firmware, debian.ram, ticker.firmware) == ("seabios", 512 * MIB, "direct")
    assert options.disks == 2
    disks = iter(["pmem:0x1", "pmem:0x2"])
    fields = with_disk(definition_fields(options, debian), debian, disks)
    assert (fields["disks"], "append" in fields) == ([{"source": "pmem:0x1"}], False)
    assert with_disk(definition_fields(options, ticker), ticker, disks).get("disks") is None
    assert VmDefinition("vm1", user_data=fields["user_data"]).checked()
    with pytest.raises(BadRequestError, match="no guest 'arch'"):
        Options(labs.Options(), guest=("arch",)).checked()
    with pytest.raises(BadRequestError, match="are for the ticker"):
        Options(labs.Options(), guest=("debian",)).checked()


def test_firmwares_are_kinds_too() -> None:
    options = Options(labs.Options(), firmware=("direct", "ovmf")).checked()
    assert [kind.firmware for kind in options.kinds()] == ["direct", "ovmf"]
    assert [kind.ram for kind in options.kinds()] == [128 * MIB, 256 * MIB]
    assert [kind.label for kind in options.kinds()] == ["direct", "ovmf"]
    assert options.data()["firmware"] == ["direct", "ovmf"]
    with pytest.raises(BadRequestError, match="no firmware called 'bios'"):
        Options(labs.Options(), firmware=("bios",)).checked()


def test_backends_take_turns_machine_by_machine() -> None:
    ours = ("multi-root", "in-place")
    options = Options(labs.Options(), contenders=ours, backend=("default", "ext4"), boots=3).checked()
    assert in_turns(options) == ["default", "ext4", "ext4", "default", "default", "ext4"]
    assert [kind.label for kind in options.kinds("ext4")] == ["ext4"]
    alone = Options(labs.Options(), contenders=ours, backend=("ext4",), ram=(128 * MIB, GIB)).checked()
    assert [kind.label for kind in alone.kinds("ext4")] == ["128 MiB", "1 GiB"]
    assert options.arena == replace(options, backend=("default",)).arena
    assert options.data()["backend"] == ["default", "ext4"]


def test_a_backend_that_is_none_or_does_not_fit() -> None:
    with pytest.raises(BadRequestError, match="no backend 'xfs'"):
        Options(labs.Options(), backend=("xfs",)).checked()
    with pytest.raises(BadRequestError, match="kexec-pmem finds VMs by device-dax alone"):
        Options(labs.Options(), backend=("default", "ext4")).checked()
    with pytest.raises(BadRequestError, match="one kind of VM"):
        Options(labs.Options(), ("multi-root",), backend=("default", "own"), fresh=2).checked()
