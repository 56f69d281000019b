# SPDX-License-Identifier: GPL-2.0-or-later
"""What click says of numbers out of bounds is said in words, whatever the bounds."""

from __future__ import annotations

import click
import pytest

from multiroot.cli.usage import told


@pytest.mark.parametrize(
    ("bounds", "given", "line"),
    [
        (click.IntRange(0), -7, "--n: -7 is too small: at least 0"),
        (click.FloatRange(0, min_open=True), 0.0, "--n: 0.0 is too small: above 0"),
        (click.IntRange(max=5), 9, "--n: 9 is too large: at most 5"),
        (click.FloatRange(max=5, max_open=True), 5.0, "--n: 5.0 is too large: below 5"),
        (click.IntRange(2, 5), 9, "--n: 9 is no number from 2 to 5"),
        (
            click.FloatRange(0, 1, min_open=True, max_open=True),
            1.0,
            "--n: 1.0 is no number above 0 and below 1",
        ),
        (click.IntRange(2, 5), "x", "--n: 'x' is no whole number"),
        (click.FLOAT, "x", "--n: 'x' is no number"),
    ],
)
def test_numbers(bounds: click.ParamType, given: object, line: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        bounds.convert(given, click.Option(["-n", "--n"]), None)
    assert told(caught.value) == line


def test_what_is_not_known_is_told_as_it_is() -> None:
    assert told(click.UsageError("Something new of click's.")) == "Something new of click's"
    assert told(click.BadParameter("it is odd.", param_hint="'--n'")) == "--n: it is odd"
