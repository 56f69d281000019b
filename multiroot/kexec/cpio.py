# SPDX-License-Identifier: GPL-2.0-or-later
"""Initramfs archives in the "newc" cpio format (Documentation/driver-api/early-userspace/buffer-
format.rst).
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field


@dataclass
class Archive:
    """Files of an initramfs; the same additions in the same order give the same bytes (times are 0,
    owner root).
    """

    _chunks: list[bytes] = field(default_factory=list)
    _inode: int = 0
    _folders: set[str] = field(default_factory=set)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and, first, those above it."""
        path = path.strip("/")
        if not path or path in self._folders:
            return
        self.folder(path.rpartition("/")[0])
        self._folders.add(path)
        self._entry(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.folder(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFREG | mode, data)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device node."""
        self.folder(path.strip("/").rpartition("/")[0])
        self._entry(path.strip("/"), stat.S_IFCHR | 0o600, b"", (major, minor))

    def finish(self) -> bytes:
        self._entry("TRAILER!!!", 0, b"")
        return b"".join(self._chunks)

    def _entry(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields)
        self._chunks += [_padded(header + encoded), _padded(data)]


def behind(initrd: bytes, archive: bytes) -> bytes:
    """An initrd with an archive more, which the kernel unpacks after what is in it already."""
    return _padded(initrd) + archive


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
