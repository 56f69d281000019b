# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands on a terminal after a program has drawn whole screens on it, as rich does."""

from __future__ import annotations

import re

WIDTH, HEIGHT = 80, 24
_IN, _OUT = "\x1b[?1049h", "\x1b[?1049l"  # of the other screen
_HOME = "\x1b[H"
_ORDER = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


def screens(output: str) -> list[list[str]]:
    """All pictures that were drawn, as lines without colours."""
    drawn = output.partition(_IN)[2].partition(_OUT)[0]
    pictures = [_ORDER.sub("", each).replace("\r", "") for each in drawn.split(_HOME)]
    return [[line.rstrip() for line in each.split("\n")] for each in pictures if each.strip()]


def fits(picture: list[str]) -> bool:
    """Whether a picture is no larger than the terminal."""
    return len(picture) <= HEIGHT and max(map(len, picture)) <= WIDTH
