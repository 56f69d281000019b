# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: one JSON line per edge of a step, on stable storage before the step goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from multiroot.coordinator.states import STEPS, Edge, Entry, Standing, replay
from multiroot.errors import MultirootError

JOURNAL = Path("/var/lib/multiroot/journal.jsonl")


class Journal:
    """Append-only file of entries; a torn last line (power went while writing) is as if never written."""

    def __init__(self, path: Path = JOURNAL) -> None:
        """Raises MultirootError when the file or its folder cannot be had, or holds what no journal has."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._entries = self._read()
        except OSError as error:
            raise MultirootError(f"cannot keep the journal {path}: {error.strerror}") from error

    def write(self, step: str, edge: Edge, **data: Any) -> None:
        """Append and sync; raises MultirootError when that fails, so that no step runs unrecorded."""
        entry = Entry(step, edge, time.time_ns(), data)
        line = json.dumps(
            {"step": step, "edge": edge.value, "wall_ns": entry.wall_ns, "data": data}, separators=(",", ":")
        )
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                try:
                    file.write(line.encode() + b"\n")
                    os.fsync(file.fileno())
                except OSError:
                    # Half a line would spoil the next one.
                    file.truncate(before)
                    raise
        except OSError as error:
            raise MultirootError(f"cannot write the journal {self.path}: {error.strerror}") from error
        self._entries.append(entry)

    def standing(self) -> Standing:
        """Where the update stands by what is written."""
        return replay(self._entries)

    def reset(self) -> None:
        """Start over with an empty journal; only valid when nothing is begun."""
        self.path.unlink(missing_ok=True)
        self._entries = []

    def _read(self) -> list[Entry]:
        if not self.path.exists():
            return []
        *lines, torn = self.path.read_bytes().split(b"\n")
        if torn:
            # Cut it off, else the next entry would be written behind it.
            with self.path.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines))
        return [self._parse(line, number) for number, line in enumerate(lines, 1) if line]

    def _parse(self, line: bytes, number: int) -> Entry:
        try:
            raw = json.loads(line)
            entry = Entry(raw["step"], Edge(raw["edge"]), int(raw["wall_ns"]), {**raw["data"]})
            known = entry.step in STEPS
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._broken(number) from error
        if not known:
            raise self._broken(number)
        return entry

    def _broken(self, number: int) -> MultirootError:
        return MultirootError(
            f"the journal {self.path} is broken at line {number}",
            "look at it, then remove it if no other root is running",
        )
