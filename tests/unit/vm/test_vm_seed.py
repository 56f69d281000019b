# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk that tells cloud-init of a VM what its definition says."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm.conftest import SMALL, SetFaults

from multiroot.errors import BadRequestError
from multiroot.rpc.border import USER_DATA_MOST
from multiroot.units import MIB
from multiroot.vm import fat, seed
from multiroot.vm.manager import VmManager

USER_DATA = "#cloud-config\nhostname: web\n"


def files(image: bytes) -> dict[str, bytes]:
    """The files in a FAT12 disk, read as a kernel does: by its boot sector, the table and the root folder."""
    size, cluster, reserved, fats, entries = struct.unpack_from("<HBHBH", image, 11)
    (length,) = struct.unpack_from("<H", image, 22)
    table, root = image[reserved * size :], (reserved + fats * length) * size
    data = root + entries * 32
    assert table[: length * size] == table[length * size : 2 * length * size]
    found, name = {}, ""
    for at in range(root, data, 32):
        entry = image[at : at + 32]
        if entry[11] == 0x0F:
            part = (entry[1:11] + entry[14:26] + entry[28:]).decode("utf-16-le")
            # The last part comes first.
            name = part.split("\0")[0].rstrip("\uffff") + ("" if entry[0] & 0x40 else name)
        elif entry[11] == 0x20:
            number, left = struct.unpack_from("<HI", entry, 26)
            content = b""
            while len(content) < left:
                start = data + (number - 2) * size * cluster
                content += image[start : start + size * cluster]
                (pair,) = struct.unpack_from("<H", table, number * 3 // 2)
                number = pair >> 4 if number % 2 else pair & 0xFFF
            assert not left or number >= 0xFF8, "the last of its clusters"
            found[name] = content[:left]
    return found


SIZES = st.integers(512, 65535).map(lambda sectors: sectors * fat.SECTOR)


@given(st.lists(st.binary(max_size=20_000), max_size=4), st.just(fat.SIZE) | SIZES)
def test_a_disk_has_what_was_put_there(contents: list[bytes], size: int) -> None:
    named = {f"{'x' * 9 * number}file": content for number, content in enumerate(contents)}
    image = fat.image("CIDATA", named, size)
    assert len(image) == size
    assert image == fat.image("CIDATA", named, size)
    assert files(image) == named


@pytest.mark.parametrize("size", [fat.SIZE, 2 * MIB, 6 * MIB])
def test_a_disk_that_is_full(size: int) -> None:
    layout = fat.lay_out(size)
    room = layout.clusters * layout.cluster_size
    assert room > size * 0.98
    assert files(fat.image("X", {"a": bytes(room)}, size)) == {"a": bytes(room)}
    with pytest.raises(BadRequestError, match="do not fit"):
        fat.image("X", {"a": bytes(room + 1)}, size)


def test_other_words_are_another_first_boot() -> None:
    first, again, other = (seed.image("web", text) for text in (USER_DATA, USER_DATA, f"{USER_DATA}#"))
    assert first == again
    assert files(first)["user-data"] == USER_DATA.encode()
    assert b'"local-hostname": "web"' in files(first)["meta-data"]
    assert files(first)["meta-data"] != files(other)["meta-data"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hostname: web\n", "does not say what it is"),
        ("#cloud-config\n\0", "not printable in line 2: "),
        ("#!" + "a" * USER_DATA_MOST, "longer than 64 KiB"),
    ],
)
def test_what_is_no_user_data(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=says):
        replace(SMALL, user_data=text).checked()
    path = tmp_path / "user-data"
    path.write_text(text)
    with pytest.raises(BadRequestError, match=f"{path}: .*{says}"):
        seed.read_user_data(str(path))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"cannot read .*absent: No such file"):
        seed.read_user_data(str(tmp_path / "absent"))
    (tmp_path / "bytes").write_bytes(b"#!\xff")
    with pytest.raises(BadRequestError, match="bytes: it is not UTF-8: line 1 has the byte 0xff"):
        seed.read_user_data(str(tmp_path / "bytes"))


async def test_a_vm_has_the_disk(manager: VmManager, set_faults: SetFaults) -> None:
    vm = await manager.run(replace(SMALL, user_data=USER_DATA))
    assert files(vm.folder.seed.read_bytes())["user-data"] == USER_DATA.encode()
    assert vm.vmm.process
    words = Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_text().split("\0")
    (drive,) = [word for word in words if str(vm.folder.seed) in word]
    assert '"read-only": true' in drive
    with pytest.raises(BadRequestError, match="only a q35 machine"):
        replace(SMALL, machine="microvm", user_data=USER_DATA).checked()
