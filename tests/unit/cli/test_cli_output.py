# SPDX-License-Identifier: GPL-2.0-or-later
"""What others chose the words of is printed as it is, and does nothing to the terminal."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_nothing_is_left_that_moves_a_cursor(text: str) -> None:
    assert clean(text).replace("\n", "").isprintable()
