# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new root is given that nobody else may know. It gets this in its loaded segments, behind its initrd.

The kernel unpacks it to FOLDER of the initramfs. The initrd has to move what is there to /run/multiroot,
before it goes on to the root file system.
"""

from __future__ import annotations

from collections.abc import Mapping

from multiroot.kexec.cpio import Archive

FOLDER = "multiroot"
KEYS = "keys"  # folder with the keys for each root beside this one
PARENT = f"{KEYS}/parent"


def pack(files: Mapping[str, bytes]) -> bytes:
    """An archive of files by their paths below FOLDER. Nothing in it can be read by others than root."""
    archive = Archive()
    archive.folder(FOLDER, 0o700)
    for path, data in files.items():
        above = path.split("/")[:-1]
        for depth in range(len(above)):
            archive.folder("/".join((FOLDER, *above[: depth + 1])), 0o700)
        archive.file(f"{FOLDER}/{path}", data, 0o600)
    return archive.finish()
