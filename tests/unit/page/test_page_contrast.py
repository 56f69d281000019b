# SPDX-License-Identifier: GPL-2.0-or-later
"""Texts and signs of the page stand out from what is behind them, in both themes and for all eyes."""

from __future__ import annotations

import re

import pytest

from multiroot.page.server import STATIC

Colour = tuple[float, float, float]

# What stands on what. WCAG 2.2 AA wants 4.5 for text, and 3 for large text, outlines and signs.
TEXT = [
    (front, back)
    for back in ("paper", "surface", "sunken", "left-tint", "right-tint")
    for front in ("ink", "soft")
] + [
    ("left", "left-tint"),
    ("left", "surface"),
    ("left", "paper"),
    ("right", "right-tint"),
    ("right", "surface"),
    ("right", "paper"),
    ("on-vm", "vm"),
    ("danger", "danger-tint"),
    ("danger", "paper"),
    ("danger", "surface"),
    ("surface", "danger"),
    ("surface", "left"),
    ("surface", "right"),
    ("good", "paper"),
    ("paper", "ink"),
]
SIGNS = [
    ("vm", "surface"),
    ("vm", "left-tint"),
    ("vm", "right-tint"),
    ("line", "surface"),
    ("line", "paper"),
    ("line", "sunken"),
    ("focus", "paper"),
    ("focus", "surface"),
    ("left", "sunken"),
    ("right", "sunken"),
]


def themes() -> dict[str, dict[str, str]]:
    """The colours of each theme by name."""
    css = (STATIC / "theme.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root(?:\[data-theme=\"dark\"\])? \{\n  color-scheme[^}]*\}", css)
    )
    return {"light": light, "dark": dark}


def linear(colour: str) -> Colour:
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return red, green, blue


def luminance(colour: Colour) -> float:
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(linear(one)), luminance(linear(other))))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_standard_has_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_both_themes_have_the_same_colours() -> None:
    light, dark = themes().values()
    assert light.keys() == dark.keys()
    assert len(light) > 15


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), TEXT)
def test_texts_can_be_read(theme: str, front: str, back: str) -> None:
    colours = themes()[theme]
    assert contrast(colours[front], colours[back]) >= 4.5, (front, back)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), SIGNS)
def test_signs_can_be_seen(theme: str, front: str, back: str) -> None:
    colours = themes()[theme]
    assert contrast(colours[front], colours[back]) >= 3, (front, back)


# Viénot, Brettel and Mollon 1999: how the two common kinds of colour blindness see, in linear RGB.
BLIND: dict[str, tuple[Colour, Colour, Colour]] = {
    "no red": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "no green": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eyes", BLIND)
@pytest.mark.parametrize(
    ("one", "other"), [("left", "right"), ("left-mid", "right-mid"), ("left-tint", "right-tint")]
)
def test_the_two_kernels_differ_for_colour_blind_eyes(theme: str, eyes: str, one: str, other: str) -> None:
    colours = themes()[theme]
    seen = [
        [sum(a * b for a, b in zip(row, linear(colours[name]), strict=True)) for row in BLIND[eyes]]
        for name in (one, other)
    ]
    # In blue against the rest, which these eyes tell apart well.
    shares = [blue / max(1e-6, (red + green + blue)) for red, green, blue in seen]
    assert abs(shares[0] - shares[1]) > 0.05, shares
