# SPDX-License-Identifier: GPL-2.0-or-later
"""CONTRIBUTING's table of layers says what `make lint` checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_contributing_has_the_layers_that_lint_checks() -> None:
    config = tomllib.loads((TOP / "pyproject.toml").read_text())
    contract = config["tool"]["importlinter"]["contracts"][0]
    checked = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    table = (TOP / "CONTRIBUTING.md").read_text().partition("| layer | ")[2].partition("\n\n")[0]
    written = [set(re.findall(r"`(\w+)`", row.split("|")[2])) for row in table.splitlines()[2:]]
    assert written == checked
