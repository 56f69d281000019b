# SPDX-License-Identifier: GPL-2.0-or-later
"""Filesystems on disks of the machine, as the kernel's table has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot import proc
from multiroot.errors import BadRequestError, ConflictError
from multiroot.proc import Completed
from multiroot.storage import filesystems
from multiroot.storage.filesystems import Filesystem, Mount, mount_of, parse

TABLE = r"""22 1 252:0 / / ro,relatime shared:1 - erofs /dev/pmem0 ro
23 22 0:5 / /run rw,nosuid - tmpfs tmpfs rw,mode=755
40 22 254:0 / /srv rw,relatime shared:9 - ext4 /dev/vda rw
41 40 254:16 / /srv/my\040disks rw,noatime - ext4 /dev/vdb rw,errors=remount-ro
42 22 0:40 / /srvother rw - tmpfs tmpfs rw
43 22 254:0 /vms /part rw - ext4 /dev/vda rw
44 22 259:1 / /run/arena rw - ext4 /dev/pmem1 rw
45 22 254:32 / /mnt/read rw - ext4 /dev/vdc ro
46 22 254:48 / /mnt/net rw - ext4 /dev/sda rw
"""


def test_the_table_is_read_with_its_escapes() -> None:
    assert parse(TABLE)[3] == Mount("/dev/vdb", "ext4", "/srv/my disks", "rw,noatime", "rw,errors=remount-ro")
    assert [mount.root for mount in parse(TABLE)[4:7]] == ["/", "/vms", "/"]


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


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """Where the disks of the table are: two on PCI, one of an iSCSI server, one in persistent memory."""
    places = {
        "vda": "pci0000:00/0000:00:05.0/virtio2/block/vda",
        "vdb": "pci0000:00/0000:00:06.0/virtio3/block/vdb",
        "sda": "platform/host1/session1/target1:0:0/1:0:0:0/block/sda",
        "pmem1": "platform/e820_pmem/ndbus0/region0/namespace0.0/block/pmem1",
    }
    folder = tmp_path / "block"
    folder.mkdir()
    for name, place in places.items():
        (tmp_path / place).mkdir(parents=True)
        (folder / name).symlink_to(tmp_path / place)
    return folder


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the kernel has it; each disk's UUID is its name."""

    def run(argv: Sequence[str], **_: object) -> Completed:
        return Completed(tuple(argv), 0, f"{Path(argv[-1]).name}\n", "")

    monkeypatch.setattr(proc, "run", run)
    found = tmp_path / "mounts"
    found.write_text(TABLE)
    return found


def test_whole_filesystems_on_the_machines_disks_go_along_with_all_their_options(
    table: Path, blocks: Path
) -> None:
    assert filesystems.of_machine(table, blocks) == (
        Filesystem("vda", "ext4", "/srv", "rw,relatime", "rw"),
        Filesystem("vdb", "ext4", "/srv/my disks", "rw,noatime", "rw,errors=remount-ro"),
    )


def test_all_that_may_have_to_be_written_is_unmounted_the_last_one_first(
    table: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what the next root does not mount; memory stays as it is, and so does what is read only."""
    left: list[str] = []
    monkeypatch.setattr(filesystems, "leave", left.append)
    filesystems.leave_all((), table, blocks)
    assert left == ["/mnt/net", "/part", "/srv/my disks", "/srv"]


def test_what_the_root_runs_from_stays_mounted(tmp_path: Path, blocks: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")
    assert tuple(filesystems.writable(parse(table.read_text()), blocks)) == ()


def test_a_file_on_a_part_of_a_filesystem_is_refused(table: Path) -> None:
    with pytest.raises(ConflictError, match="/part is /vms of /dev/vda") as caught:
        filesystems.of("/part/web.raw", table)
    assert "mount /dev/vda" in (caught.value.hint or "")


def test_options_that_another_kernel_does_not_know_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted: list[str] = []

    def run(argv: Sequence[str], **_: object) -> Completed:
        if argv[0] == "mount":
            mounted.append(argv[-1])
        return Completed(tuple(argv), 32 if "attr2" in argv[-1] else 0, "/dev/vda\n", "bad option")

    monkeypatch.setattr(proc, "run", run)
    for own in ("attr2", "errors=remount-ro", ""):
        filesystems.come(Filesystem("0b1c", "xfs", str(tmp_path / "srv"), "rw", own))
    assert mounted == ["rw,attr2", "rw", "rw,errors=remount-ro", "rw"]


def test_odd_mounts_keep_no_root_from_leaving(table: Path, blocks: Path) -> None:
    """Of the first the next root mounts the filesystem without its own options, the second one not at all."""
    table.write_text(
        '40 22 254:0 / /srv rw - ext4 /dev/vda rw,context="a b"\n'
        "41 22 254:16 / /mnt/bell\\007 rw - ext4 /dev/vdb rw\n"
    )
    assert filesystems.of_machine(table, blocks) == (Filesystem("vda", "ext4", "/srv", "rw"),)
    assert len(filesystems.writable(parse(table.read_text()), blocks)) == 2
