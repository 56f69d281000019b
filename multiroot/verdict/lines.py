# SPDX-License-Identifier: GPL-2.0-or-later
"""One line of a kernel's console: what the kernel put before its message, and the message."""

from __future__ import annotations

import re
from dataclasses import dataclass

# "<6>" of a console with levels, then printk.time and CONFIG_PRINTK_CALLER ("[   T12]", "[    C0]").
_HEAD = r"(?:<(?P<level>\d+)>)?\[ *(?P<seconds>\d+\.\d{3,9})\](?:\[ *(?P<caller>[TC]\d+)\])? ?"
_AT_START = re.compile(_HEAD)
# A shell shares the console: its prompt, or what it echoed, may stand before a message.
_LATER = re.compile(r"(?<=\W)" + _HEAD)
_RECORDED = re.compile(r"(?P<ns>\d{6,}) ")  # the lab's recorder stamps lines by its own clock


@dataclass(frozen=True)
class Line:
    """`text` is the message; `seconds` the kernel's own clock, None for a line without a stamp. `heard_ns` is
    CLOCK_MONOTONIC of whoever recorded the line, 0 if nobody did. `caller` is "T12" or "C0", or "".
    """

    text: str
    seconds: float | None = None
    caller: str = ""
    heard_ns: int = 0


def parse(raw: str) -> Line:
    """Take a line apart; what the kernel did not write is a message without a stamp."""
    raw = raw.rstrip("\r\n")
    recorded = _RECORDED.match(raw)
    heard = int(recorded["ns"]) if recorded else 0
    rest = raw[recorded.end() :] if recorded else raw
    head = _AT_START.match(rest) or _LATER.search(rest)
    if not head:
        return Line(rest.strip(), heard_ns=heard)
    return Line(rest[head.end() :].rstrip(), float(head["seconds"]), head["caller"] or "", heard)
