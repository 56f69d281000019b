# SPDX-License-Identifier: GPL-2.0-or-later
"""Each kind of disk that a guest can see goes along in a handoff; what a firmware boots; what is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot import proc
from multiroot.demo import device, guests
from multiroot.lab import disk_image, grub, lab, roots
from multiroot.lab.nbd_server import NbdServer
from multiroot.phases import Phases
from multiroot.rpc import client
from multiroot.units import MIB

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

SIZE = 16 * MIB
SAID_S = 60.0
# In the first sector of a disk, where a BIOS starts: it sends a letter to the serial port, again and again.
# mov dx, 0x3f8; mov al, LETTER; out dx, al; xor cx, cx; loop $; jmp to the second instruction
CODE = b"\xba\xf8\x03\xb0%c\xee\x31\xc9\xe2\xfe\xeb\xf7"


def boot_sector(letter: bytes) -> bytes:
    code = CODE % letter
    return code + bytes(510 - len(code)) + grub.SIGNATURE


@dataclass(frozen=True)
class Place:
    """A lab with two disks, A and B, whose boot sectors say so; and a server with a qcow2."""

    cli: Cli
    a: str
    b: str
    files: tuple[Path, Path]
    server: NbdServer
    qcow2: Path
    tools: Path


@pytest.fixture(scope="module")
def place(labs_factory: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("disks")
    files = folder / "a.raw", folder / "b.raw"
    for file, letter in zip(files, (b"A", b"B"), strict=True):
        file.write_bytes(boot_sector(letter))
        os.truncate(file, SIZE)
    tools = disk_image.tools(lab.cache(Phases("workstation")))
    qcow2 = folder / "c.qcow2"
    proc.run([*roots.loader_argv(tools, "bin/qemu-img"), "create", "-q", "-f", "qcow2", qcow2, str(SIZE)])
    os.truncate(qcow2, SIZE + 2 * MIB)  # a server's disk does not grow
    machine = labs_factory.fresh(kernels=("6.1", "7.x"), vms=2, disks=tuple(map(str, files)))
    a, b = (f"pmem:{each.start:#x}" for each in machine.state.machine.layout.disks)
    with closing(NbdServer(tools, qcow2)) as server:
        server.start()
        yield Place(Cli(machine), a, b, files, server, qcow2, tools)
    labs_factory.discard(machine)


@pytest.fixture
def cli(place: Place) -> Iterator[Cli]:
    """Leaves no VM and no other root."""
    yield place.cli
    for vm in place.cli.data("vm", "list"):  # type: ignore[attr-defined]
        place.cli.ok("vm", "rm", "--force", vm["name"])
    place.cli.run("root", "release", "--force")


def writes(cli: Cli, root: str, more: int) -> device.Writes:
    """The account of the guest once so many more of its writes have ended, all of them well."""
    with client.connect(cli.lab.agent_address, root=root) as channel:
        before = device.parse_writes(device.output_until(channel, "writer", 0, guests.BOOT_TIMEOUT))[-1]
        output = device.output_until(channel, "writer", before.done + more, guests.BOOT_TIMEOUT)
    seen = device.parse_writes(output)[-1]
    assert seen.bad == 0
    return seen


def said(cli: Cli, name: str, words: str, root: str = "old") -> None:
    """The guest says that on its serial port."""
    until = time.monotonic() + SAID_S
    while words not in (text := cli.ok("vm", "console", name, "--no-follow", "--root", root)):
        assert time.monotonic() < until, text[-400:]


def cpu(cli: Cli, name: str, root: str = "old") -> dict[str, str]:
    """The features of its CPU."""
    shown: Any = cli.data("vm", "show", name, "--root", root)
    return dict(word.split("=", 1) for word in shown["cpu"].split(",")[1:])


def tsc_khz(cli: Cli, root: str) -> int:
    """What KVM of that root gives new guests."""
    asked = "from multiroot.vm.qemu.kvm import tsc_khz; print(tsc_khz())"
    return int(cli.lab.run(["python3", "-c", asked], root=root).stdout)


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
def test_scsi_disk_cd_and_qcow2_go_to_another_kernel_and_back(place: Place, cli: Cli, kernel: str) -> None:
    """Proves that writes go on, and are all there, by virtio-scsi with a CD beside it, and in a qcow2; that
    the guest's TSC is as fast there; and that a TSC which no root has is refused.
    """
    disks = ("--disk", f"{place.a},bus=virtio-scsi", "--disk", f"{place.b},bus=cd")
    scsi = (*disks, "--append", "ticker.disk=sda")
    qcow2 = ("--disk", f"{place.server.source},format=qcow2", "--append", "ticker.disk=vda")
    cli.ok("root", "launch", "--kernel", kernel)
    khz = tsc_khz(cli, "old")
    assert abs(tsc_khz(cli, "new") - khz) * 1e6 < 250 * khz
    for words in (scsi, qcow2):
        cli.ok("vm", "run", "writer", "--memory", "128M", *words)
        assert cpu(cli, "writer")["tsc-frequency"] == str(khz * 1000)
        writes(cli, "old", 100)
        for to in ("new", "old"):
            cli.ok("handoff", "writer", "--to", to)
            seen = writes(cli, to, 100)
        cli.ok("vm", "stop", "writer")
        cli.ok("vm", "rm", "writer")
        assert written(place.files[0].read_bytes() if words is scsi else raw(place)) >= seen.done
    hint = "this root cannot give other its TSC of"
    faster = f"frozen,tsc-frequency={khz * 1100}"
    cli.refused(3, hint, "vm", "run", "other", "--memory", "128M", "--cpu", faster)


def raw(place: Place) -> bytes:
    """What is in the qcow2."""
    out = place.qcow2.with_suffix(".raw")
    convert = [
        *roots.loader_argv(place.tools, "bin/qemu-img"),
        "convert",
        "-U",
        "-O",
        "raw",
        place.qcow2,
        out,
    ]
    proc.run(convert)
    return out.read_bytes()


def written(content: bytes) -> int:
    """The highest number of a block; each is whole."""
    numbers = []
    for at in range(device.BLOCK, device.BLOCK * (device.PLACES + 1), device.BLOCK):
        block = content[at : at + device.BLOCK]
        number = block[:8]
        assert block == number * (device.BLOCK // 8)
        numbers.append(int.from_bytes(number, "little"))
    return max(numbers)


@pytest.mark.parametrize(
    ("order", "letter"), [("", "A"), ("disk1,disk0", "B"), ("disk1", "B")], ids=["usual", "turned", "one"]
)
def test_a_bios_starts_the_disk_that_comes_first(place: Place, cli: Cli, order: str, letter: str) -> None:
    cli.ok(
        "vm", "run", "boots", "--memory", "64M", "--firmware", "seabios", "--boot-order", order,
        "--disk", place.a, "--disk", f"{place.b},bus=virtio-scsi",
    )  # fmt: skip
    said(cli, "boots", letter * 3)
    shown: Any = cli.data("vm", "show", "boots")
    assert shown["boot_order"] == [each for each in order.split(",") if each]


def test_bad_input_is_one_line_and_changes_nothing(place: Place, cli: Cli, tmp_path: Path) -> None:
    yaml = tmp_path / "login.yaml"
    yaml.write_text("#cloud-config\nusers: [\n")
    small = tmp_path / "small.raw"
    small.write_bytes(boot_sector(b"C") + bytes(SIZE // 2))
    cli.ok("vm", "run", "web", "--memory", "128M", "--disk", place.a, "--address", "10.77.1.5/16")
    mac = json.loads(cli.ok("vm", "show", "web", "--json"))["cards"][0]["mac"]
    run = ("vm", "run", "other", "--memory", "128M")
    boots = (*run, "--firmware", "seabios", "--disk", place.b)
    server = place.server.source
    for code, says, words in (
        (2, "this root has no persistent memory at", (*run, "--disk", "pmem:0x7000000000")),
        (2, "serves no disk of that name", (*run, "--disk", f"{server}-none")),
        (3, "is VM web's, in root 1", (*run, "--disk", place.a)),
        (2, "is given twice", (*run, "--disk", place.b, "--disk", place.b)),
        (2, "no format of disks called 'vmdk'", (*run, "--disk", f"{place.b},format=vmdk")),
        (2, "there is no qcow2 in the disk", (*run, "--disk", f"{place.b},format=qcow2")),
        (2, "there is qcow2 in it", (*run, "--disk", server)),
        (2, "a file is there in one root only", (*run, "--disk", "/srv/web.raw")),
        (3, "no root serves the disk", (*run, "--disk", "local:/srv/web.raw")),
        (3, mac, (*run, "--mac", mac)),
        (3, "10.77.1.5", (*run, "--address", "10.77.1.5/16")),
        (2, "two cards of other have the MAC", (*run, "--mac", mac, "--card", f"mac={mac}")),
        (2, "cannot have 9 network cards", (*run, *("--card", "queues=1") * 8)),
        (2, "user-data", (*run, "--user-data", str(yaml))),
        (2, "a boot order is for a firmware", (*run, "--boot-order", "disk0", "--disk", place.b)),
        (2, "other has no disk 'disk1'", (*boots, "--boot-order", "disk1")),
        (2, "no file", ("lab", "up", "--name", "none", "--disk", str(tmp_path / "none.raw"))),
        (2, "which is no multiple of 2 MiB", ("lab", "up", "--name", "none", "--disk", str(small))),
    ):
        cli.refused(code, says, *words)
