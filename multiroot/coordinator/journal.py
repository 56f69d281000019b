# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: one JSON line per edge of a step, on stable storage before the step goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from multiroot.coordinator.states import Edge, Entry, Standing, replay
from multiroot.errors import MultirootError

JOURNAL = Path("/var/lib/multiroot/journal.jsonl")


class Journal:
    """Append-only file of entries; a torn last line (power went while writing) is as if never written."""

    def __init__(self, path: Path = JOURNAL) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._entries = self._read()

    def write(self, step: str, edge: Edge, **data: Any) -> None:
        """Append and sync; raises MultirootError when that fails, so that no step runs unrecorded."""
        entry = Entry(step, edge, time.time_ns(), data)
        line = json.dumps(
            {"step": step, "edge": edge.value, "wall_ns": entry.wall_ns, "data": data}, separators=(",", ":")
        )
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
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
        entries = []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                raw = json.loads(line)
                entries.append(Entry(raw["step"], Edge(raw["edge"]), raw["wall_ns"], raw["data"]))
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    # Cut the torn line off, else the next entry would be written behind it.
                    with self.path.open("r+b") as file:
                        file.truncate(len("\n".join(lines[:-1]).encode()) + 1)
                    break
                raise MultirootError(
                    f"the journal {self.path} is broken at line {number}",
                    "look at it, then remove it if no other root is running",
                ) from error
        return entries
