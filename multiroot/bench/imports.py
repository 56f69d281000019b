# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench imports`: what an agent imports before it answers, and how long that takes on this computer.

A new root's agent is waited for, and most of its start are imports. CPython: `python -X importtime`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from multiroot import proc

AGENT = "multiroot.agent.daemon"
LATER = "multiroot.agent.parts"  # imported once the agent answers
RUNS = 5  # the first one compiles
_LINE = re.compile(r"import time:\s+(?P<own>\d+) \|\s+\d+ \|\s+(?P<name>\S+)$")


@dataclass(frozen=True)
class Import:
    """A module, and the microseconds that it took without those that it imports itself."""

    name: str
    own_us: int


@dataclass(frozen=True)
class Package:
    """Modules that belong together."""

    name: str
    modules: int
    own_us: int


def measure(*modules: str) -> list[Import]:
    """What importing `modules` in a new interpreter imports, when all is compiled; the best of some runs."""
    code = f"from multiroot import ahead; ahead.use(); import {', '.join(modules)}"
    command = [sys.executable, "-X", "importtime", "-c", code]
    runs = [parse(proc.run(command, env={"PYTHONDONTWRITEBYTECODE": ""}).stderr) for _ in range(RUNS)]
    best = {each.name: each.own_us for each in runs[0]}
    for each in chain(*runs[1:]):
        best[each.name] = min(best.get(each.name, each.own_us), each.own_us)
    return [Import(name, own_us) for name, own_us in best.items()]


def parse(text: str) -> list[Import]:
    """What `-X importtime` has printed, in the order in which imports ended."""
    lines = map(_LINE.match, text.splitlines())
    return [Import(found["name"], int(found["own"])) for found in lines if found]


def packages(imports: Sequence[Import]) -> list[Package]:
    """Ours by their folder, others by their first name; those that take longest first."""
    taken: dict[str, list[int]] = {}
    for each in imports:
        words = each.name.split(".")
        taken.setdefault(".".join(words[: 2 if words[0] == "multiroot" else 1]), []).append(each.own_us)
    found = [Package(name, len(times), sum(times)) for name, times in taken.items()]
    return sorted(found, key=lambda package: -package.own_us)
