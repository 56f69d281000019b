# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings (.mrlog): a stream of events in a file, written down and read back.

The first line is a header, every other one an event (`events.to_json`). docs/watch.md has the format.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from multiroot import __version__
from multiroot.errors import BadRequestError, MultirootError
from multiroot.watch.decode import from_json
from multiroot.watch.events import Event, State, to_json
from multiroot.watch.events import from_json as event_from_json
from multiroot.watch.view import View

FORMAT = 1
LINE_MOST = 4 << 20  # characters; a snapshot of many VMs and their strips has some hundred thousand


@dataclass(frozen=True)
class Header:
    """`mrlog` is the version of the format, `version` that of multiroot; `started` is in UTC."""

    mrlog: int = FORMAT
    version: str = __version__
    started: str = ""
    title: str = ""


class Recorder:
    """Writes events to a new file, each as it comes; use as a context manager."""

    def __init__(self, path: Path, title: str = "") -> None:
        """Raises BadRequestError when the file can't be made."""
        self._path = path
        try:
            self._file: IO[str] = path.open("w", encoding="utf-8")
        except OSError as error:
            raise BadRequestError(f"cannot write {path}: {error.strerror}") from error
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._put(asdict(Header(started=started, title=title)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, event: Event) -> None:
        """Append one event; raises MultirootError when there is no room for it."""
        self._put(to_json(event))

    def _put(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            # A run that is cut short leaves all that it has seen.
            self._file.flush()
        except OSError as error:
            raise MultirootError(f"cannot write {self._path}: {error.strerror}") from error


class Recording:
    """A file that is read as often as wanted, and never held in memory."""

    def __init__(self, path: Path) -> None:
        """Raises BadRequestError for a file that is no recording, by its first line."""
        self.path = path
        self.header = self._header()

    def events(self) -> Iterator[Event]:
        """Its events in order, the first is a State. A last line that was cut short is left out.

        Raises BadRequestError that names the line of what is no event, goes back in time, or makes no facts.
        """
        view = View()
        for number, text in self._lines():
            if number == 1:
                continue
            if not text.endswith("\n"):
                return
            try:
                event = event_from_json(_parsed(text))
                self._check(view, event)
            except BadRequestError as error:
                raise BadRequestError(f"{self.path} is damaged: line {number}: {error.message}") from error
            view.apply(event)
            yield event

    def check(self) -> int:
        """Read all of it; how many events it has. Raises as `events` does, and if there are none."""
        count = sum(1 for _ in self.events())
        if not count:
            raise BadRequestError(f"{self.path} has no events")
        return count

    def _check(self, view: View, event: Event) -> None:
        if not view.at and not isinstance(event, State):
            raise BadRequestError("the first event is no state")
        if event.at < view.at:
            raise BadRequestError("it goes back in time")
        if isinstance(event, State):
            from_json(event.document)

    def _header(self) -> Header:
        hint = "'multiroot watch --record FILE' writes recordings"
        for _, text in self._lines():
            try:
                data = _parsed(text)
            except BadRequestError:
                break
            if not isinstance(data, dict) or not isinstance(data.get("mrlog"), int):
                break
            if data["mrlog"] > FORMAT:
                raise BadRequestError(f"{self.path} is of format {data['mrlog']}, not {FORMAT}")
            told = {name: str(data.get(name, "")) for name in ("version", "started", "title")}
            return Header(mrlog=data["mrlog"], **told)
        raise BadRequestError(f"{self.path} is no recording of multiroot", hint)

    def _lines(self) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            with self.path.open(encoding="utf-8") as file:
                while text := file.readline(LINE_MOST):
                    number += 1
                    if len(text) >= LINE_MOST:
                        raise BadRequestError(f"{self.path} is damaged: line {number} is too long")
                    yield number, text
        except OSError as error:
            raise BadRequestError(f"cannot read {self.path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BadRequestError(f"{self.path} is no recording of multiroot: it is no text") from error


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("it is no JSON") from error
