# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/global-state.md says what the rows say."""

from __future__ import annotations

from multiroot.audit import document, rows


def test_the_tables_in_the_docs_are_those_of_the_rows() -> None:
    text = document.path().read_text()
    hint = "run `python -m multiroot.audit.document` after changing qemu-lab/global-state.toml"
    assert text == document.updated(text, rows.load()), hint


def test_every_row_is_in_both_tables() -> None:
    text = document.tables(rows.load())
    for row in rows.load().row:
        assert text.count(f"\n| {row.name} | ") >= 2


def test_making_it_twice_changes_nothing() -> None:
    text = f"intro\n{document.BEGIN}\nold\n{document.END}\nend\n"
    once = document.updated(text, rows.load())
    assert document.updated(once, rows.load()) == once
    assert once.startswith("intro\n")
    assert once.endswith(f"{document.END}\nend\n")
