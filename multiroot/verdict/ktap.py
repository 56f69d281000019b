# SPDX-License-Identifier: GPL-2.0-or-later
"""Points as KTAP, version 1 (Documentation/dev-tools/ktap.rst), which kselftest's and KUnit's tools read."""

from __future__ import annotations

from collections.abc import Sequence

from multiroot.verdict.points import Outcome, Point, counts


def write(points: Sequence[Point]) -> str:
    """The whole document, its last line ended."""
    lines = _document(points)
    all_ = counts(points)
    lines.append(
        f"# Totals: pass:{all_[Outcome.HELD]} fail:{all_[Outcome.FAILED]} xfail:0 xpass:0"
        f" skip:{all_[Outcome.SKIPPED]} error:0"
    )
    return "\n".join(lines) + "\n"


def _document(points: Sequence[Point]) -> list[str]:
    lines = ["KTAP version 1", f"1..{len(points)}"]
    for number, each in enumerate(points, 1):
        lines += [f"  {line}" for line in _document(each.points)] if each.points else []
        lines += [f"# {_one_line(detail)}" for detail in each.details]
        lines.append(_result(number, each))
    return lines


def _result(number: int, point: Point) -> str:
    word = "not ok" if point.outcome is Outcome.FAILED else "ok"
    # "#" begins a directive or a diagnostic, wherever it stands.
    text = f"{word} {number} {_one_line(point.claim).replace('#', '')}"
    seen = _one_line(point.seen)
    if point.outcome is Outcome.SKIPPED:
        return f"{text} # SKIP {seen}".rstrip()
    return f"{text} # {seen}" if seen else text


def _one_line(text: str) -> str:
    """Nothing but printable characters: kernels and programs choose the words."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
