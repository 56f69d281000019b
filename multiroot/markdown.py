# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables in pages of the documentation that programs write. Pure."""

from __future__ import annotations

from multiroot.errors import BadRequestError


def row(*cells: str) -> str:
    """One row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def around(text: str, name: object, begin: str, end: str) -> tuple[str, str]:
    """What stands before the mark `begin` and behind the mark `end` in the page `name`; what is between them
    is made anew. Raises BadRequestError if a mark is missing.
    """
    before, found, rest = text.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise BadRequestError(f"{name} has no place for the table", f"it is between {begin} and {end}")
    return before, after
