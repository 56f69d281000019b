# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of commands that boot a lab machine reach the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from multiroot.cli import lab as lab_commands
from multiroot.cli.lab_options import LabChoice, lab_options
from multiroot.lab import lab as labs
from multiroot.phases import Phases


class Asked(Exception):
    """Ends a command where it would build and boot."""


def choose(*words: str) -> tuple[LabChoice, dict[str, Any]]:
    """What a command with these options, and one of its own, is given."""
    seen: list[tuple[LabChoice, dict[str, Any]]] = []

    @click.command()
    @lab_options("mine")
    @click.option("--own", default=3)
    def command(lab: LabChoice, **others: Any) -> None:
        seen.append((lab, others))

    CliRunner().invoke(command, words, standalone_mode=False, catch_exceptions=False)
    return seen[0]


def test_nothing_said_leaves_all_to_the_command() -> None:
    choice, others = choose()
    assert choice == LabChoice("mine", None, None, None)
    assert others == {"own": 3}
    assert choice.options() == labs.Options(name="mine")
    assert choice.options(machine="passthrough").machine == "passthrough"


def test_what_was_said_wins() -> None:
    words = ("--name", "n", "--machine", "a/b.toml", "--accel", "tcg", "--modules", "/m")
    choice, _ = choose(*words)
    options = choice.options(machine="passthrough", kernel="6.1", vms=2)
    assert options == labs.Options(
        name="n",
        machine="a/b.toml",
        accelerator="tcg",
        modules=Path("/m"),
        kernel="6.1",
        vms=2,
    )


def test_an_accelerator_is_one_of_two() -> None:
    with pytest.raises(click.BadParameter, match="kvm"):
        choose("--accel", "hvf")


def test_lab_up_passes_them_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[labs.Options] = []

    def prepare(options: labs.Options, phases: Phases) -> None:
        seen.append(options)
        raise Asked

    monkeypatch.setattr(labs, "prepare", prepare)
    words = ("up", "--machine", "/my/copy.toml", "--accel", "tcg", "--cpus", "6", "--name", "x", "--dry-run")
    result = CliRunner().invoke(lab_commands.lab, words, standalone_mode=False)
    assert isinstance(result.exception, Asked)
    assert seen == [labs.Options(name="x", machine="/my/copy.toml", accelerator="tcg", cpus=6, hold=False)]
