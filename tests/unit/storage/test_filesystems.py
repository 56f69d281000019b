# SPDX-License-Identifier: GPL-2.0-or-later
"""Filesystems on disks of the machine, as the kernel's table has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.storage import filesystems
from multiroot.storage.filesystems import Filesystem, Mount, mount_of, parse

TABLE = r"""22 1 252:0 / / ro,relatime shared:1 - erofs /dev/pmem0 ro
23 22 0:5 / /run rw,nosuid - tmpfs tmpfs rw,mode=755
40 22 254:0 / /srv rw,relatime shared:9 - ext4 /dev/vda rw
41 40 254:16 / /srv/my\040disks rw,noatime - ext4 /dev/vdb rw
42 22 0:40 / /srvother rw - tmpfs tmpfs rw
"""


def test_the_table_is_read_with_its_escapes() -> None:
    assert parse(TABLE)[3] == Mount("/dev/vdb", "ext4", "/srv/my disks", "rw,noatime")


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("/srv/web.raw", "/dev/vda"),
        ("/srv/my disks/web.raw", "/dev/vdb"),
        ("/srvother/web.raw", "tmpfs"),
        ("/srv", "/dev/vda"),
        ("/etc/passwd", "/dev/pmem0"),
    ],
)
def test_a_file_is_on_the_innermost_mount_above_it(path: str, device: str) -> None:
    mount = mount_of(path, parse(TABLE))
    assert mount is not None
    assert mount.device == device


def test_of_two_mounts_at_one_place_the_last_counts() -> None:
    mounts = [Mount("/dev/vda", "ext4", "/srv", "rw"), Mount("/dev/vdb", "ext4", "/srv", "rw")]
    found = mount_of("/srv/a", mounts)
    assert found is not None
    assert found.device == "/dev/vdb"


def test_only_a_file_on_a_disk_of_the_machine_is_here(tmp_path: Path) -> None:
    file = tmp_path / "web.raw"
    table = tmp_path / "mounts"
    table.write_text(f"1 1 254:0 / {tmp_path} rw - ext4 /dev/vda rw\n")
    assert not filesystems.is_here(str(file), table)
    file.touch()
    assert filesystems.is_here(str(file), table)
    assert not filesystems.is_here(str(tmp_path), table)
    table.write_text(f"1 1 0:40 / {tmp_path} rw - tmpfs tmpfs rw\n")
    assert not filesystems.is_here(str(file), table)


@pytest.mark.parametrize(
    "told",
    [
        ("", "ext4", "/srv", "rw"),
        ("0b1c; reboot", "ext4", "/srv", "rw"),
        ("0b1c", "../x", "/srv", "rw"),
        ("0b1c", "ext4", "srv", "rw"),
        ("0b1c", "ext4", "/srv/../etc", "rw"),
        ("0b1c", "ext4", "/srv\n", "rw"),
        ("0b1c", "ext4", "/srv", "rw,x=$(y)"),
    ],
)
def test_what_another_root_says_is_looked_at(told: tuple[str, str, str, str]) -> None:
    with pytest.raises(BadRequestError, match="not a filesystem"):
        Filesystem(*told).checked()


@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_passes_is_one_word_for_a_command(uuid: str, kind: str, point: str, options: str) -> None:
    try:
        found = Filesystem(uuid, kind, point, options).checked()
    except BadRequestError:
        return
    assert found.point.startswith("/")
    assert "\n" not in found.point
    assert "\0" not in found.point
    assert not found.options.startswith("-") or "," not in found.options[:1]
    assert Filesystem.from_dict(found.to_dict()) == found
