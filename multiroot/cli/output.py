# SPDX-License-Identifier: GPL-2.0-or-later
"""Rendering for people and machines: tables, JSON, and progress from phases."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from multiroot.phases import Phase, Phases

if TYPE_CHECKING:
    from rich.console import Console

LAST_LINES = 10  # of a kernel that did not come up

json_option = click.option("--json", "as_json", is_flag=True, help="Print data instead of a table.")


def console(stderr: bool = False) -> Console:
    """A rich console. Without a terminal it is wide enough that nothing is cut or wrapped, whatever COLUMNS
    says: a program that uses readline sets it for all that it starts.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else 200,
        highlight=False,
        soft_wrap=True,
        emoji=False,  # ":a:" is a part of an address
    )


def clean(text: str) -> str:
    """Text without what a terminal would take for a command, or a reader for a line of ours: others may have
    chosen it.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def plain(text: object) -> str:
    """The same for rich, which takes words in brackets for its own."""
    from rich.markup import escape

    return escape(clean(str(text)))


def say(text: str, *, err: bool = False) -> None:
    """Print one line, whoever chose its words, on stdout or on stderr."""
    click.echo(clean(text), err=err)


def print_file(text: str) -> None:
    """Print what is to be kept as a file: in UTF-8, whatever this terminal has."""
    click.echo("\n".join(map(clean, text.splitlines())).encode())


def yes_or_no(value: object) -> str:
    """A truth in a table for people."""
    return "yes" if value else "no"


def print_json(data: Any) -> None:
    """Print `data` as indented JSON on stdout. A number that JSON can't say (NaN, infinities) is null."""
    click.echo(_as_json(data))


def _as_json(data: Any) -> str:
    return json.dumps(_finite(data), indent=2, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def print_lost(vms: Sequence[str]) -> None:
    """Say which VMs were lost with a root that was ended; nothing if none was."""
    if vms:
        say(f"lost: {', '.join(vms)}")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a plain table. A heading that ends in " >" aligns its column to the right, for numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=plain(title) or None, title_justify="left", pad_edge=False)
    for heading in headings:
        # What has no room goes on in the next line: cut off, a number would be another one.
        table.add_column(
            heading.removesuffix(" >"),
            justify="right" if heading.endswith(" >") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    console().print(table)


class Progress:
    """Shows phases on stderr: a line for each that ended and, on a terminal, a live one for what runs."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._status: Any = None
        self._running: list[str] = []
        self._heard: deque[str] = deque(maxlen=LAST_LINES)

    def hear(self, line: str) -> None:
        """Take in a line of a new root's kernel: shown beside what runs, and kept in case it was the last."""
        self._heard.append(clean(line))
        self._show()

    def __call__(self, phase: Phase) -> None:
        label = plain(f"{phase.side}: {phase.name}")
        if phase.duration_ns is None:
            self._running.append(label)
        else:
            if label in self._running:
                self._running.remove(label)
            mark = "[green]done[/]" if phase.ok else "[red]FAILED[/]"
            detail = plain(" ".join(f"{key}={value}" for key, value in phase.attrs.items()))
            self._console.print(
                f"  {mark} {phase.duration_ns / 1e9:8.3f} s  {label}"
                + (f"  [dim]{detail}[/]" if detail else "")
            )
            self._say_last_words(phase.ok)
        self._show()

    def _say_last_words(self, well: bool) -> None:
        """When what ran while the kernel spoke has failed, its last lines say more than the error does."""
        if not well:
            for line in self._heard:
                self._console.print(f"    {line}", style="dim", markup=False)
        self._heard.clear()

    def _show(self) -> None:
        if self._status is None or not self._console.is_terminal:
            return
        from rich.markup import escape

        text = self._running[-1] + " ..." if self._running else ""
        if text and self._heard:
            room = max(0, self._console.width - len(text) - 6)
            text += f"  [dim]{escape(self._heard[-1][:room])}[/]"
        self._status.update(text)

    @contextmanager
    def live(self) -> Iterator[Progress]:
        """Show a spinner while the body runs, on a terminal only."""
        with self._console.status("") as status:
            self._status = status
            try:
                yield self
            finally:
                self._status = None


@contextmanager
def shown_phases(side: str = "workstation") -> Iterator[Phases]:
    """Phases of `side` that are shown as they start and end, while the body runs."""
    phases = Phases(side)
    with Progress().live() as progress:
        phases.subscribe(progress)
        yield phases
