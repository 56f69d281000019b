# SPDX-License-Identifier: GPL-2.0-or-later
"""What others chose the words of is printed as it is, and does nothing to the terminal."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.cli import completion, output, reference
from multiroot.cli.output import Progress, clean, print_table
from multiroot.phases import Phase

NASTY = ("[/dev/x] gone", "[red]", "\x1b[2J", "[bold", "\\[/a]", "a\tb", "\x9b1m", "\udcff")


@pytest.mark.parametrize("text", NASTY)
def test_a_table_shows_any_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    print_table(("name",), [(text,)])
    assert clean(text) in capsys.readouterr().out


@pytest.mark.parametrize("text", NASTY)
def test_progress_shows_any_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    phase = Phase("boot", "root 1", 0, 1)
    phase.attrs["outcome"] = text
    Progress()(phase)
    assert f"outcome={clean(text)}" in capsys.readouterr().err


def test_a_table_is_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left out: a number that is cut off is another one. Where there is no terminal, COLUMNS
    says nothing: any program that uses readline sets it for what it starts.
    """
    row = ("6.12.0-something", "x" * 30, "1234567890")
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("kernel", "what", "bytes >"), [row])
    assert max(map(len, capsys.readouterr().out.splitlines())) > 60
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    print_table(("kernel", "what", "bytes >"), [row])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 30
    shown = "".join(lines)
    assert all(shown.count(letter) >= "".join(row).count(letter) for letter in "x1234567890")


def test_an_address_is_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("address",), [("fe80::1:a:b",)])
    assert "fe80::1:a:b" in capsys.readouterr().out


def test_a_kernel_cannot_give_orders_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while it is waited for nor when its last words are shown."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress().live() as show:
        show(Phase("boot", "root 1", 0))
        show.hear("\x1b]0;x\x07[/red]")
        show(Phase("boot", "root 1", 0, 1, ok=False))
    said = terminal.getvalue()
    assert "\x1b]" not in said
    assert "\x07" not in said
    assert r"\x1b]0;x\x07[/red]" in said


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_nothing_is_left_that_moves_a_cursor(text: str) -> None:
    assert clean(text).isprintable()


def test_nothing_is_printed_past_what_cleans_it() -> None:
    """`say` and `print_json` are what commands print with."""
    ours = Path(output.__file__)
    # Neither prints what others chose.
    others = {ours, Path(completion.__file__), Path(reference.__file__)}
    there = set(ours.parent.glob("*.py")) - others
    assert there
    assert [path.name for path in there if re.search(r"click\.s?echo", path.read_text())] == []
