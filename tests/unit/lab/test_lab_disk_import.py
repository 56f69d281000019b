# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images from elsewhere: which ones are taken, and what becomes of the others. qemu-img is played."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError, CommandError, ConflictError, MultirootError
from multiroot.lab import disk_image, disk_import, image_lock
from multiroot.lab.cache import Cache
from multiroot.lab.disk_import import DiskInfo, check_first_sector, default_name, read_info
from multiroot.phases import Phases
from multiroot.units import GIB

FILE = Path("/images/cloud.qcow2")
# As qemu-img 10.0 says it, less what nobody looks at.
QCOW2: dict[str, Any] = {
    "virtual-size": 3 * GIB,
    "filename": str(FILE),
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 200704,
    "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "corrupt": False}},
    "dirty-flag": False,
}
BOOTS = b"\0" * 510 + b"\x55\xaa"

# Says what it is told as `info`; for `convert` and `dd` it copies, and tells how it was called.
FAKE = """
import json, pathlib, shutil, sys
here = pathlib.Path(sys.argv[0]).parent
with (here / "calls").open("a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
if sys.argv[1] == "info":
    print((here / "info").read_text())
elif sys.argv[1] == "check":
    print("ERROR cluster 7", file=sys.stderr)
    sys.exit(int((here / "check").read_text()))
elif sys.argv[1] == "dd":
    words = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
    head = pathlib.Path(words["if"]).read_bytes()[: int(words["bs"])]
    pathlib.Path(words["of"]).write_bytes(head)
else:
    shutil.copy(sys.argv[-2], sys.argv[-1])
    sys.exit((here / "fails").exists())
"""


def says(**changes: Any) -> str:
    """What qemu-img says of an image that differs in this; a None takes a key away."""
    changed = {**QCOW2, **{key.replace("_", "-"): value for key, value in changes.items()}}
    return json.dumps({key: value for key, value in changed.items() if value is not None})


def test_a_good_image_is_read() -> None:
    assert read_info(says(), FILE) == DiskInfo("qcow2", 3 * GIB)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"backing_filename": "base.qcow2"}, "is only what differs from another image, base.qcow2"),
        ({"encrypted": True}, "is encrypted"),
        ({"format": "luks"}, "is encrypted"),
        ({"virtual_size": 0}, "is an empty disk"),
        ({"format_specific": {"data": {"data-file": "d.raw"}}}, "has its data in another file, d.raw"),
        (
            {"format": "vmdk", "format_specific": {"data": {"extents": [{"filename": "x-flat.vmdk"}]}}},
            "has its data in another file, x-flat.vmdk",
        ),
        ({"virtual_size": None}, "says nothing about .* that we know: .* is missing"),
        ({"format": None}, "says nothing about .* that we know: .* is missing"),
    ],
)
def test_images_that_are_not_taken(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(BadRequestError, match=line):
        read_info(says(**changes), FILE)


def test_a_vmdk_with_its_data_in_itself_is_taken() -> None:
    details = {"type": "vmdk", "data": {"extents": [{"filename": str(FILE), "format": ""}]}}
    assert read_info(says(format="vmdk", format_specific=details), FILE).format == "vmdk"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | json_values.map(json.dumps))
def test_nothing_else_is_taken_for_an_image(text: str) -> None:
    with pytest.raises(BadRequestError, match="qemu-img says nothing about"):
        read_info(text, FILE)


@given(st.sampled_from(sorted(QCOW2)), json_values)
def test_a_field_that_is_wrong_is_no_bug(field: str, value: Any) -> None:
    with suppress(BadRequestError):
        assert read_info(json.dumps({**QCOW2, field: value}), FILE).size > 0


def test_a_raw_disk_begins_with_a_boot_sector_or_with_nothing() -> None:
    """A disk for data may be empty, or have a file system without a table: those begin with zeros, too."""
    for sector in (BOOTS, b"\0" * 512):
        check_first_sector(sector, FILE, "raw")
        check_first_sector(sector, FILE, "qcow2")
    for sector in (b"", BOOTS[:-1], b"\0" * 511, b"\0" * 511 + b"x"):
        with pytest.raises(BadRequestError, match="is no disk image"):
            check_first_sector(sector, FILE, "raw")
        with pytest.raises(BadRequestError, match="has no partition table"):
            check_first_sector(sector, FILE, "qcow2")


@pytest.mark.parametrize(
    ("begin", "unpack"),
    [
        (gzip.compress(b"disk"), "gunzip --keep"),
        (lzma.compress(b"disk"), "unxz --keep"),
        (bz2.compress(b"disk"), "bunzip2 --keep"),
        (bytes.fromhex("28b52ffd"), "unzstd"),
        (b"PK\3\4", "unzip"),
    ],
    ids=["gz", "xz", "bz2", "zst", "zip"],  # a name that holds the time differs from worker to worker
)
def test_a_compressed_disk_is_called_that(begin: bytes, unpack: str) -> None:
    with pytest.raises(BadRequestError, match=r"my disk\.raw\.gz is compressed") as refused:
        check_first_sector(begin.ljust(512, b"x"), Path("my disk.raw.gz"), "raw")
    assert refused.value.hint == f"unpack it: {unpack} 'my disk.raw.gz'"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/cloud.qcow2", "cloud"),
        ("F-Base.x86_64-42.vmdk", "F-Base.x86_64-42"),
        ("disk.raw", "disk"),
        ("d", "d"),
    ],
)
def test_names_come_from_files(file: str, name: str) -> None:
    assert default_name(Path(file)) == name


@pytest.mark.parametrize("file", ["my disk.raw", ".hidden", "ä.img", "x" * 64, "debian-13.qcow2"])
def test_files_that_give_no_name(file: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        default_name(Path(file))
    assert "--name" in raised.value.hint


@pytest.fixture
def qemu_img(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one that is played; images go below it, too."""
    (tmp_path / "qemu-img").write_text(FAKE)
    (tmp_path / "info").write_text(says())
    (tmp_path / "check").write_text("0")
    monkeypatch.setattr(
        disk_import, "_qemu_img", lambda _: [sys.executable, "-S", str(tmp_path / "qemu-img")]
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def cache(folder: Path) -> Cache:
    return Cache(folder / "cache", Phases("workstation"))


def test_an_image_is_converted_from_the_format_that_was_found(qemu_img: Path) -> None:
    file = qemu_img / "cloud.qcow2"
    file.write_bytes(BOOTS)
    path = disk_import.bring_in(file, "cloud", cache(qemu_img))
    assert path == qemu_img / "data/multiroot/images/cloud.raw"
    assert path.read_bytes() == BOOTS
    *_, convert = [json.loads(line) for line in (qemu_img / "calls").read_text().splitlines()]
    assert convert[:6] == ["convert", "-f", "qcow2", "-O", "raw", str(file)]
    assert disk_import.imported() == {"cloud": path}
    with pytest.raises(ConflictError, match="there is an image called cloud") as raised:
        disk_import.bring_in(file, "cloud", cache(qemu_img))
    assert "multiroot vm image rm cloud" in raised.value.hint
    disk_import.remove("cloud")
    assert disk_import.imported() == {}


def test_half_an_image_is_not_left(qemu_img: Path) -> None:
    file = qemu_img / "cloud.qcow2"
    file.write_bytes(b"QFI")
    with pytest.raises(BadRequestError, match="has no partition table"):
        disk_import.bring_in(file, "cloud", cache(qemu_img))
    (qemu_img / "fails").touch()
    with pytest.raises(CommandError):
        disk_import.bring_in(file, "cloud", cache(qemu_img))
    assert not list((qemu_img / "data/multiroot/images").iterdir())


@pytest.mark.parametrize(("code", "taken"), [(0, True), (3, True), (63, True), (1, False), (2, False)])
def test_damaged_images_are_not_taken(qemu_img: Path, code: int, taken: bool) -> None:
    (qemu_img / "check").write_text(str(code))
    file = qemu_img / "cloud.qcow2"
    file.write_bytes(BOOTS)
    if taken:
        assert disk_import.inspect(file, cache(qemu_img)).format == "qcow2"
        return
    with pytest.raises(BadRequestError, match=r"cloud\.qcow2 is damaged") as raised:
        disk_import.inspect(file, cache(qemu_img))
    assert raised.value.hint == "ERROR cluster 7"


def test_what_is_no_file_is_not_shown_to_qemu_img(qemu_img: Path) -> None:
    (qemu_img / "empty").touch()
    for file, line in (("none", "no file"), ("empty", "is empty"), ("", "is not a file but a folder")):
        with pytest.raises(BadRequestError, match=line):
            disk_import.bring_in(qemu_img / file, "x", cache(qemu_img))
    assert not (qemu_img / "calls").exists()


def test_a_file_of_no_format_is_no_raw_disk(qemu_img: Path) -> None:
    (qemu_img / "info").write_text(says(format="raw"))
    file = qemu_img / "notes"
    file.write_text("not a disk" * 100)
    with pytest.raises(BadRequestError, match="notes is no disk image"):
        disk_import.bring_in(file, "notes", cache(qemu_img))
    file.write_bytes(BOOTS + b"\0" * 4096)
    assert disk_import.bring_in(file, "notes", cache(qemu_img)).stat().st_size == 512 + 4096


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_download_that_was_cut_short_is_not_taken(qemu_img: Path, kind: str) -> None:
    """qemu-img takes a raw disk of any length, and so it does a qcow2 that was made of one."""
    file = qemu_img / "cloud.raw"
    partition = struct.pack("<B3xB3xII", 0x80, 0x83, 1, 7)
    whole = bytes(446) + partition + bytes(48) + b"\x55\xaa" + bytes(7 * 512)
    for size in (len(whole) - 1, len(whole)):
        file.write_bytes(whole[:size])
        (qemu_img / "info").write_text(says(format=kind, virtual_size=size))
        if size < len(whole):
            with pytest.raises(BadRequestError, match=r"cloud\.raw is cut off: .* is made for 4 KiB"):
                disk_import.bring_in(file, "cloud", cache(qemu_img))
            assert disk_import.imported() == {}
    disk_import.bring_in(file, "cloud", cache(qemu_img))


@contextmanager
def written_to(file: Path) -> Iterator[None]:
    """As the QEMU of a lab machine has it."""
    with image_lock.written(file):
        yield


def test_an_image_that_a_machine_writes_to_is_not_read(qemu_img: Path) -> None:
    """What would come of it would be half of before and half of after."""
    (qemu_img / "info").write_text(says(format="raw"))
    file, link = qemu_img / "cloud.raw", qemu_img / "link.raw"
    file.write_bytes(BOOTS)
    link.hardlink_to(file)
    with written_to(link):
        with pytest.raises(ConflictError, match=r"cloud\.raw is in use: a lab machine .*multiroot lab down"):
            disk_import.bring_in(file, "cloud", cache(qemu_img))
        with pytest.raises(ConflictError, match="is in use"):
            disk_image.copy_to(file, qemu_img / "copy.raw", Phases("workstation"))
        assert disk_import.imported() == {}
        assert not (qemu_img / "copy.raw").exists()
    path = disk_import.bring_in(file, "cloud", cache(qemu_img))
    with written_to(path), pytest.raises(ConflictError, match="is in use"):
        disk_import.remove("cloud")
    disk_import.remove("cloud")


def test_while_an_image_is_read_no_machine_writes_to_it(tmp_path: Path) -> None:
    file = tmp_path / "x.raw"
    file.write_bytes(BOOTS)
    with (
        image_lock.read(file),
        image_lock.read(file),
        pytest.raises(ConflictError, match="or it is being read"),
        image_lock.written(file),
    ):
        pass
    with image_lock.written(file):
        pass


def test_an_image_that_another_qemu_writes_to_is_in_use(qemu_img: Path) -> None:
    said = 'qemu-img: Could not open: Failed to get shared \\"write\\" lock'
    (qemu_img / "qemu-img").write_text(f'import sys\nsys.exit("{said}")')
    file = qemu_img / "cloud.qcow2"
    file.write_bytes(BOOTS)
    with pytest.raises(ConflictError, match="another program writes to it"):
        disk_import.inspect(file, cache(qemu_img))


@pytest.mark.parametrize("name", ["none", "../x", "debian-13"])
def test_only_what_was_imported_is_removed(qemu_img: Path, name: str) -> None:
    with pytest.raises(MultirootError):
        disk_import.remove(name)
