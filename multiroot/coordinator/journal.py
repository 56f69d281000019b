# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: one JSON line per edge of a step, on stable storage before the step goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multiroot.coordinator.states import STEPS, Edge, Entry, Standing, advance
from multiroot.errors import MultirootError
from multiroot.launch.record import this_boot

JOURNAL = Path("/var/lib/multiroot/journal.jsonl")


class Journal:
    """Append-only file of entries. A torn last line (power went while writing) is as if never written.

    Entries of an earlier boot of this root are void: what they tell of ended with it. A journal that cannot
    be read is a `problem`, and nothing is written to it. It is read again whenever it is used, so that the
    agent goes on as soon as somebody has mended or removed it.
    """

    def __init__(
        self, path: Path = JOURNAL, boot_id: str | None = None, changed: Callable[[], None] = lambda: None
    ) -> None:
        """`changed` is called when something was written."""
        self.path = path
        self._changed = changed
        self._boot_id = boot_id if boot_id is not None else this_boot()
        self._standing = Standing()
        self.problem: MultirootError | None = None
        self._load()

    def check(self) -> None:
        """Raises MultirootError while the journal cannot be read."""
        if self.problem:
            self._load()
        if self.problem:
            raise self.problem

    def write(self, step: str, edge: Edge, **data: Any) -> None:
        """Append and sync; raises MultirootError when that fails, so that no step runs unrecorded."""
        self.check()
        entry = Entry(step, edge, time.time_ns(), data)
        fields = {
            "boot": self._boot_id,
            "step": step,
            "edge": edge.value,
            "wall_ns": entry.wall_ns,
            "data": data,
        }
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            raise MultirootError(f"cannot write the journal {self.path}: {error.strerror}") from error
        self._standing = advance(self._standing, entry)
        self._changed()

    def standing(self) -> Standing:
        """Where the update stands by what is written."""
        return self._standing

    def reset(self) -> None:
        """Start over with an empty journal; only valid when nothing is begun."""
        self.check()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise MultirootError(f"cannot remove the journal {self.path}: {error.strerror}") from error
        self._standing = Standing()
        self._changed()

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(0, "no room for a whole line")
                os.fsync(file.fileno())
            except OSError:
                # Half a line must not stand between this entry and the next one.
                file.truncate(size)
                raise

    def _load(self) -> None:
        self._standing, self.problem = Standing(), None
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = MultirootError(f"cannot read the journal {self.path}: {error.strerror}")
            return
        *lines, torn = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                boot_id, entry = _entry(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                self.problem = MultirootError(
                    f"the journal {self.path} is broken at line {number}",
                    f"if no other root runs (`multiroot root list`), remove it: rm {self.path}",
                )
                return
            if boot_id == self._boot_id:
                self._standing = advance(self._standing, entry)
        if torn:
            try:
                os.truncate(self.path, len(data) - len(torn))
            except OSError as error:
                self.problem = MultirootError(f"cannot mend the journal {self.path}: {error.strerror}")


def _entry(line: bytes) -> tuple[str, Entry]:
    """The boot and the entry in one line; raises ValueError, KeyError, TypeError or AttributeError."""
    raw = json.loads(line)
    step, wall_ns, data = raw["step"], raw["wall_ns"], raw["data"]
    if step not in STEPS or not isinstance(wall_ns, int) or not isinstance(data, dict):
        raise ValueError(f"not an entry: {line!r}")
    return str(raw["boot"]), Entry(step, Edge(raw["edge"]), wall_ns, data)
