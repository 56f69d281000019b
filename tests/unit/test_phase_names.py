# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of phases are written once: whoever times a phase and whoever looks for one use the same constant."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2] / "multiroot"
SOURCES = sorted(path for path in TOP.rglob("*.py") if "v1" not in path.parts)


def literal_names(source: str) -> list[str]:
    """Names that are given to `phase(...)` or `Phase(...)` as text, not by a constant."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        literal = isinstance(node.args[0], ast.JoinedStr) or (
            isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
        )
        if called in ("phase", "Phase") and literal:
            found.append(ast.unparse(node.args[0]))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TOP)))
def test_no_phase_is_named_by_text(path: Path) -> None:
    assert literal_names(path.read_text()) == []


@pytest.mark.parametrize("call", ['phases.phase("load")', 'Phase("load", side)', 'phase(f"undo {name}")'])
def test_text_would_be_found(call: str) -> None:
    assert literal_names(f"with {call}: pass" if "phase(" in call else call)
