# SPDX-License-Identifier: GPL-2.0-or-later
"""What shows a lab machine's roots their arena."""

from __future__ import annotations

from enum import StrEnum


class Backend(StrEnum):
    """device-dax where the kernel has it; or always our own device; or a file of ext4 with DAX in the
    first root, which later ones have by our own device.
    """

    DEFAULT = "default"
    OWN = "own"
    EXT4 = "ext4"

    def appended(self, words: str) -> str:
        """What a root's command line gets, beside `words`."""
        return f"{words} {_WORDS[self]}".strip()


_WORDS = {Backend.DEFAULT: "", Backend.OWN: "multirootd.own-arena", Backend.EXT4: "multirootd.ext4-arena"}
