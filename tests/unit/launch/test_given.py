# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new root is given: behind its initrd, readable by root alone."""

from __future__ import annotations

import stat

import pytest

from multiroot.kexec.cpio import Archive, behind
from multiroot.launch.given import pack


def modes(archive: bytes) -> dict[str, int]:
    """Names and permissions in a newc archive: headers of a fixed size, names and data padded to 4."""
    found, at = {}, 0
    while True:
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        if name == "TRAILER!!!":
            return found
        found[name] = stat.S_IMODE(mode)
        at += -(-(110 + name_size) // 4) * 4 + -(-size // 4) * 4


def test_it_is_for_root_alone() -> None:
    archive = pack({"token": b"secret", "keys/parent/key": b"key"})
    assert modes(archive) == {
        "multiroot": 0o700,
        "multiroot/token": 0o600,
        "multiroot/keys": 0o700,
        "multiroot/keys/parent": 0o700,
        "multiroot/keys/parent/key": 0o600,
    }


@pytest.mark.parametrize("size", range(8))
def test_it_begins_where_the_kernel_looks_for_the_next_archive(size: int) -> None:
    """On a multiple of 4 bytes, with zeros before it (early-userspace/buffer-format.rst)."""
    archive = Archive().finish()
    whole = behind(b"x" * size, archive)
    assert whole.index(archive) % 4 == 0
    assert set(whole[size : whole.index(archive)]) <= {0}
