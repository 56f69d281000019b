# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a root and its programs take.

`python3 -m multiroot.bench.in_root.footprint` prints it as JSON, in bytes.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from multiroot import bugs
from multiroot.arena import dax_file
from multiroot.arena.backing import OWN_DEVICE
from multiroot.plan import iomem

_KIB = 1024
_ARENAS = ("/dev/dax", f"/dev/{OWN_DEVICE}", str(dax_file.FILE))
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)")
_AGENT = "multirootd"


@dataclass(frozen=True)
class Footprint:
    """Of a root: RAM it was given, what its kernel left of it for others, what is still available (proc(5):
    MemTotal, MemAvailable); its agent's share."""

    given: int
    total: int
    available: int
    agent: int


def take(top: Path = Path("/")) -> Footprint:
    """This root's."""
    ram = [item.range.size for item in iomem.parse((top / "proc/iomem").read_text()) if item.is_ram]
    info = {
        words[0].rstrip(":"): int(words[1]) * _KIB
        for line in (top / "proc/meminfo").read_text().splitlines()
        if len(words := line.split()) >= 2
    }
    return Footprint(sum(ram), info["MemTotal"], info["MemAvailable"], _agent(top))


def process(pid: int, top: Path = Path("/")) -> int:
    """A process's proportional share of memory (proc(5): Pss), without what it maps of the arena."""
    total, counts = 0, False
    for line in (top / f"proc/{pid}/smaps").read_text().splitlines():
        mapping = _MAPPING.fullmatch(line)
        if mapping:
            counts = not mapping[1].startswith(_ARENAS)
        elif counts and line.startswith("Pss:"):
            total += int(line.split()[1]) * _KIB
    return total


def _agent(top: Path) -> int:
    for path in (top / "proc").glob("[0-9]*/cmdline"):
        command = path.read_bytes().split(b"\0")
        if any(word.endswith(_AGENT.encode()) for word in command[:2]):
            return process(int(path.parent.name), top)
    return 0


if __name__ == "__main__":
    with bugs.one_line("footprint"):
        sys.stdout.write(json.dumps(asdict(take())) + "\n")
