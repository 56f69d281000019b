# SPDX-License-Identifier: GPL-2.0-or-later
"""How a demo's report is told, whatever its guest was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from multiroot.cli.output import console, plain, print_json
from multiroot.cli.points import PointsChoice

if TYPE_CHECKING:
    from multiroot.demo.demo_report import Check


class Report(Protocol):
    """What was seen, and whether all that is claimed held."""

    @property
    def held(self) -> bool: ...

    def to_json(self) -> dict[str, Any]: ...

    def checks(self) -> Sequence[Check]: ...


R = TypeVar("R", bound=Report)


def tell(
    report: R, json_file: Path | None, show: Callable[[R], None], points: PointsChoice, suite: str
) -> bool:
    """As test points, as `points` says under the name `suite`, as data into a file, or to stdout ("-"), and
    to people by `show`; whether everything held.
    """
    from multiroot.verdict.points import of_checks

    points.tell(of_checks(report.checks()), suite)
    if json_file == Path("-"):
        print_json(report.to_json())
        return report.held
    if json_file:
        json_file.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    if not points.ktap:
        show(report)
    return report.held


def print_checks(checks: Iterable[Check], *, held: bool) -> None:
    """A line for each claim, and the verdict."""
    out = console()
    for check in checks:
        mark = "[green]held  [/]" if check.held else "[red]FAILED[/]"
        out.print(f"  {mark} {plain(check.claim)}: {plain(check.seen)}")
    out.print("everything held" if held else "[red]not everything held[/]")
