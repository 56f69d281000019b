# SPDX-License-Identifier: GPL-2.0-or-later
"""How disks are written, and what is in them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.ranges import PHYS_BITS
from multiroot.units import GIB, MIB
from multiroot.vm.disk import BUSES, FORMATS, Disk, parse_disks, write_disk
from multiroot.vm.disk_content import HEAD, Content, check_content

PMEM = st.integers(0, (1 << PHYS_BITS) - 1).map(lambda address: f"pmem:{address:#x}")
PORTS = st.integers(1, 65535)
EXPORTS = st.from_regex(r"[A-Za-z0-9._~/-]{0,40}", fullmatch=True)
V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
NBD = st.builds(lambda host, port, name: f"nbd://{host}:{port}/{name}", V4, PORTS, EXPORTS)
NBD6 = st.builds(lambda host, port, name: f"nbd://[{host}]:{port}/{name}", V6, PORTS, EXPORTS)
DISKS = st.builds(
    Disk, st.one_of(PMEM, NBD, NBD6), st.sampled_from(BUSES), st.booleans(), st.sampled_from(FORMATS)
)


@given(DISKS)
def test_a_disk_that_is_written_is_read_as_the_same(disk: Disk) -> None:
    """Also when it has been checked already, as it is in every root that it comes to."""
    (read,) = parse_disks([write_disk(disk)])
    assert read == disk
    checked = read.checked()
    assert checked.checked() == checked
    assert (checked.address is None) != (checked.server is None)


@given(st.text(max_size=40))
def test_any_text_is_a_disk_or_refused(text: str) -> None:
    try:
        (disk,) = parse_disks([text])
        checked = disk.checked()
    except BadRequestError:
        return
    assert parse_disks([write_disk(checked)]) == (checked,)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("nbd:10.0.2.2:10809", "nbd://10.0.2.2:10809/"),
        ("nbd:10.0.2.2:7/a/b", "nbd://10.0.2.2:7/a/b"),
        ("nbd://10.0.2.2", "nbd://10.0.2.2:10809/"),
        ("nbd://10.0.2.2/d", "nbd://10.0.2.2:10809/d"),
        ("nbd:[fd00:0::1]:7/d", "nbd://[fd00::1]:7/d"),
        ("PMEM:0x01C0000000", "pmem:0x1c0000000"),
    ],
)
def test_equal_disks_are_written_equally(text: str, source: str) -> None:
    (disk,) = parse_disks([text])
    assert disk.checked().source == source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/root/x.qcow2", "a file is there in one root only: '/root/x.qcow2'"),
        ("./x", "a file is there in one root only"),
        ("disk.raw", "a file is there in one root only"),
        ("file:x", "a file is there in one root only"),
        ("debian-13", "not a disk that every root reaches"),
        ("nbd:server:10809/d", "not a disk of an NBD server"),
        ("nbd:10.0.2.2", "not a disk of an NBD server"),
        ("nbd:10.0.2.2:0/d", "not a disk of an NBD server"),
        ("nbd:10.0.2.2:70000/d", "not a disk of an NBD server"),
        ("nbd:10.0.2.300:1/d", "not a disk of an NBD server"),
        ("nbd://10.0.2.2/d d", "not a disk of an NBD server"),
        ("nbd+unix:///d?socket=x", "a file is there in one root only|not a disk"),
        ("pmem:0x1,format=vmdk", "no format of disks called 'vmdk'"),
        ("pmem:0x1,bus=scsi", "no bus for disks called 'scsi'"),
        ("pmem:0x1,size=3", "not a word about a disk: 'size=3'"),
    ],
)
def test_what_is_no_disk_is_named(text: str, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        [disk.checked() for disk in parse_disks([text])]


@pytest.mark.parametrize("text", ["my.raw", "pmem:1"])
def test_who_has_no_disk_is_told_of_commands_that_work_where_they_are_read(text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        Disk(text).checked()
    assert "`multiroot disk list`" in refused.value.hint
    assert "in a root shows" not in refused.value.hint
    assert ("`multiroot lab up --disk FILE`" in refused.value.hint) == (text == "my.raw")


RAW = Disk("pmem:0x1c0000000")
QCOW2 = Disk("pmem:0x1c0000000", format="qcow2")


def content(head: bytes, size: int = GIB) -> Content:
    return Content(size, read_only=False, head=head.ljust(HEAD, b"\0"))


def qcow2(version: int = 3, backing: int = 0, features: int = 0, size: int = 0) -> bytes:
    start = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, size)
    return start.ljust(72, b"\0") + struct.pack(">Q", features)


def table(sectors: int) -> bytes:
    return bytes(512) + b"EFI PART".ljust(32, b"\0") + struct.pack("<Q", sectors - 1)


def mbr(*entries: tuple[int, int, int, int]) -> bytes:
    """Flag, type, first sector and number of sectors of each partition."""
    packed = b"".join(struct.pack("<B3xB3xII", *entry) for entry in entries)
    return bytes(446) + packed.ljust(64, b"\0") + b"\x55\xaa"


LINUX = (0x80, 0x83, 2048, GIB // 512 - 2048)  # up to the end of 1 GiB
LONGER = (0x80, 0x83, 2048, GIB // 512 - 2047)
GPT_INSIDE = (0, 0xEE, 1, 0xFFFFFFFF)


def test_what_may_be_in_a_disk() -> None:
    for disk, head in (
        (RAW, b""),
        (RAW, table(GIB // 512)),
        (RAW, mbr(LINUX)),
        (RAW, mbr(GPT_INSIDE) + table(GIB // 512)[512:]),
        (RAW, mbr(LONGER, (0x20, 0, 0, 0))),  # not a flag: code of a file system's boot sector
        (RAW, mbr((0, 0, 2048, 0xFFFFFFFF))),
        (QCOW2, qcow2()),
        (QCOW2, qcow2(2, 0, 4)),
    ):
        check_content(disk, content(head))
    check_content(Disk(RAW.source, "cd", read_only=True), Content(2048, read_only=True, head=bytes(2048)))


@pytest.mark.parametrize(
    ("disk", "found", "words"),
    [
        (RAW, content(qcow2()), "said to be raw, and there is qcow2 in it .add ,format=qcow2"),
        (QCOW2, content(b""), "there is no qcow2 in the disk"),
        (QCOW2, content(qcow2(backing=1024)), "needs another file"),
        (QCOW2, content(qcow2(features=4)), "needs another file"),
        (QCOW2, Content(16 * MIB, False, qcow2(size=16 * MIB)), "too small for the qcow2 in it"),
        (QCOW2, Content(512, read_only=False, head=b"QFI\xfb\0\0\0\3"), "is cut off"),
        (RAW, content(table(GIB // 512 + 1)), "too small for the image in it: it has 1 GiB, .* is made for"),
        (RAW, content(mbr(LINUX, LONGER)), "too small for the image in it: it has 1 GiB, .* is made for"),
        (RAW, content(mbr(LINUX), GIB - MIB), "it has 1023 MiB, its partition table is made for 1 GiB"),
        (RAW, Content(100, read_only=False, head=bytes(100)), "too small: it has 100 bytes"),
        (RAW, Content(MIB, read_only=True, head=bytes(HEAD)), "can't be written to"),
    ],
)
def test_what_else_is_in_a_disk_is_named(disk: Disk, found: Content, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        check_content(disk, found)


@pytest.mark.parametrize(
    ("size", "room"),
    # As `qemu-img measure -O qcow2` has it of one that is fully allocated.
    [(16 * MIB, 17104896), (4 * GIB, 4295884800)],
)
def test_a_qcow2_has_room_for_all_that_a_guest_may_write(size: int, room: int) -> None:
    head = qcow2(size=size)
    check_content(QCOW2, Content(room, read_only=False, head=head))
    with pytest.raises(BadRequestError, match=f"truncate --size={room} FILE"):
        check_content(QCOW2, Content(room - 1, read_only=False, head=head))
    # Nobody writes to it.
    check_content(replace(QCOW2, read_only=True), Content(room // 2, read_only=True, head=head))
