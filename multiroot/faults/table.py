# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of faults, as data in a file and as a table in a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from multiroot import markdown
from multiroot.errors import BadRequestError
from multiroot.faults.fault import Fault, Outcome

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def read(path: Path) -> dict[str, Outcome]:
    """The newest outcome of each fault, by name; none if there is no file."""
    if not path.exists():
        return {}
    return {each["name"]: Outcome(**each) for each in json.loads(path.read_text())}


def write(path: Path, outcomes: Iterable[Outcome], faults: Sequence[Fault]) -> dict[str, Outcome]:
    """Put new outcomes in place of older ones, in the order of `faults`. What is no fault any more goes."""
    known = {**read(path), **{outcome.name: outcome for outcome in outcomes}}
    kept = {fault.name: known[fault.name] for fault in faults if fault.name in known}
    path.write_text(json.dumps([asdict(outcome) for outcome in kept.values()], indent=1) + "\n")
    return kept


def render(outcomes: Iterable[Outcome]) -> str:
    """The table."""
    lines = [
        "| at | what goes wrong | the VM afterwards | settled after, s | seen |",
        "|---|---|---|---:|---|",
    ]
    for outcome in outcomes:
        fate = outcome.fate if outcome.held else f"**not held**: {'; '.join(outcome.problems)}"
        cells = (outcome.step, outcome.what, fate, f"{outcome.recovery_s:.1f}", outcome.date)
        lines.append(markdown.row(*map(_cell, cells)))
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome], count: int) -> str:
    """How many of the `count` faults were run, how many of them held, and where they were seen."""
    held = sum(outcome.held for outcome in outcomes)
    where = {tuple(outcome.versions.items()): None for outcome in outcomes if outcome.versions}
    versions = "; ".join(", ".join(f"{name} {value}" for name, value in each) for each in where)
    left = f" {count - len(outcomes)} more were not run." if count > len(outcomes) else ""
    return f"{held} of {len(outcomes)} held.{left} Seen with {versions}."


def update_page(page: Path, outcomes: Sequence[Outcome], count: int) -> None:
    """Write the table, of outcomes of some of `count` faults, between the page's markers.

    Raises BadRequestError if it has none.
    """
    before, after = _around(page)
    table = f"{summary(outcomes, count)}\n\n{render(outcomes)}"
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def check_page(page: Path) -> None:
    """Raises BadRequestError for one that `update_page` can't update."""
    _around(page)


def _around(page: Path) -> tuple[str, str]:
    """What stands before the table and behind it."""
    try:
        text = page.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{page} is no page: {error}", "name one like docs/faults.md") from error
    return markdown.around(text, page, BEGIN, END)


def _cell(text: str) -> str:
    return " ".join(text.split())
