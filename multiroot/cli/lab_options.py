# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of every command that boots a lab machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.units import parse_size

if TYPE_CHECKING:
    from multiroot.lab.lab import Options

Command = Callable[..., Any]


@dataclass(frozen=True)
class LabChoice:
    """What these options say. `machine` and `accelerator` are None where nothing was said."""

    name: str
    machine: str | None
    accelerator: str | None
    modules: Path | None

    def options(self, *, machine: str = "default", **more: Any) -> Options:
        """The lab's options; `machine` is for when none was given, `more` are fields of them."""
        from multiroot.lab.lab import Options

        return Options(
            name=self.name,
            machine=self.machine or machine,
            accelerator=self.accelerator,
            modules=self.modules,
            **more,
        )


class SizeType(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else parse_size(value)


def lab_options(name: str) -> Callable[[Command], Command]:
    """Adds --name (`name` by default), --machine, --accel, --modules; the command gets `lab: LabChoice`."""
    options = (
        click.option("--name", default=name, show_default=True, help="Name of the lab it runs in."),
        click.option("--machine", metavar="NAME|PATH", help="Recipe in qemu-lab/machines, or a .toml file."),
        click.option(
            "--accel",
            "accelerator",
            type=click.Choice(["auto", "kvm", "tcg"]),
            help="Of the machine; auto is KVM where it works.",
        ),
        click.option("--modules", type=click.Path(path_type=Path), help="Modules of kernels given by path."),
    )

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(
            name: str, machine: str | None, accelerator: str | None, modules: Path | None, **others: Any
        ) -> Any:
            return function(lab=LabChoice(name, machine, accelerator, modules), **others)

        decorated: Command = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
