# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot kernel`: what a kernel has to be built with, and building one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_file, print_json, print_table, say, shown_phases
from multiroot.errors import BadRequestError

if TYPE_CHECKING:
    from multiroot.lab.kernel_config import Lack

FAILED = 1
feature_option = click.option(
    "--for", "features", multiple=True, metavar="FEATURE", help="Only for this (see `kernel config show`)."
)


@click.group(cls=Group)
def kernel() -> None:
    """See what a kernel has to be built with, and build one."""


@kernel.group(cls=Group)
def config() -> None:
    """Options that a kernel needs as a root, as a guest, and for more."""


@config.command(example="multiroot kernel config check /boot/config-6.1.0 --for root")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path))
@feature_option
@json_option
def check(path: Path, features: tuple[str, ...], as_json: bool) -> int:
    """Say what a .config lacks, and what that costs; CONFIG may be the folder that has it.

    Ends with 1 if the kernel could not be a root.
    """
    from multiroot.lab import kernel_config

    file = path / ".config" if path.is_dir() else path
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        raise BadRequestError(
            f"cannot read {file}: {error.strerror}",
            "name a .config, or the folder that has one",
        ) from error
    chosen = kernel_config.wishes().chosen(features)
    lacks = kernel_config.check(kernel_config.parse(text, file), chosen)
    needed = [each for each in lacks if each.needed]
    if as_json:
        print_json({"root": not needed, "lacks": [lack_json(each) for each in lacks]})
    elif lacks:
        _print_lacks(lacks)
        say(
            f"it cannot be a root: {len(needed)} of {len(lacks)} options that it lacks are needed"
            if needed
            else f"it can be a root; {len(lacks)} options are missing for more"
        )
    else:
        say("nothing is missing")
    return FAILED if needed else 0


@config.command(example="multiroot kernel config fragment --for root --for arena")
@feature_option
@click.option("--small", is_flag=True, help="Also what a small kernel is built without.")
def fragment(features: tuple[str, ...], small: bool) -> None:
    """Print the options to merge into a .config (scripts/kconfig/merge_config.sh)."""
    from multiroot.lab import kernel_config

    wishes = kernel_config.wishes()
    print_file(kernel_config.fragment(wishes.chosen(features), wishes.small if small else None))


@config.command(example="multiroot kernel config show --for arena")
@feature_option
@json_option
def show(features: tuple[str, ...], as_json: bool) -> None:
    """Print every option with what it is for, and what the lack of it costs."""
    from multiroot.lab import kernel_config

    chosen = kernel_config.wishes().chosen(features)
    if as_json:
        print_json({name: each.model_dump() for name, each in chosen.items()})
        return
    for name, feature in chosen.items():
        print_table(
            ("option", "as", "without it"),
            [(each.name, each.value, each.without) for each in feature.options],
            title=f"{name}: {feature.what}{' (needed)' if feature.needed else ''}",
        )


@kernel.command(example="multiroot kernel build linux-source-6.12 --out ~/o")
@click.argument("source", metavar="SRC")
@click.option("--out", type=click.Path(path_type=Path), help="The O= folder; one in the cache without.")
@click.option("--config", "base", type=click.Path(path_type=Path), help="A .config to start from.")
@click.option(
    "--merge", "more", multiple=True, type=click.Path(path_type=Path), help="One more fragment of options."
)
@click.option("--jobs", type=click.IntRange(0), default=0, show_default="all CPUs", help="Compilers at once.")
@click.option("--configure-only", is_flag=True, help="Compile nothing.")
@click.option(
    "--debug",
    multiple=True,
    metavar="WHAT",
    help="Have it look for bugs in itself: kasan, lockdep (and kmemleak), kcov.",
)
@click.option(
    "--no-modules",
    is_flag=True,
    help="A kernel that loads none (CONFIG_MODULES=n): all is built in, multiroot's modules, too.",
)
@feature_option
@json_option
def build(
    source: str,
    out: Path | None,
    base: Path | None,
    more: tuple[Path, ...],
    jobs: int,
    configure_only: bool,
    debug: tuple[str, ...],
    no_modules: bool,
    features: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build a small kernel that can be a root, outside of its tree, with ccache.

    SRC is a source tree, a Debian package such as linux-source-6.12, or a kernel of the lab's such as 7.x,
    which is built of its suite's source. A second run compiles what has changed.
    """
    from multiroot.workbench import kernel_build

    order = kernel_build.Order(source, out, base, more, features, jobs, configure_only, debug, no_modules)
    with shown_phases() as phases:
        made = kernel_build.build(order, phases)
    if as_json:
        lacks = [lack_json(each) for each in made.lacks]
        print_json({"out": str(made.out), "release": made.release, "lacks": lacks})
        return
    if made.lacks:
        _print_lacks(made.lacks)
    if configure_only:
        say(f"kernel {made.release} is configured in {made.out}")
    else:
        say(f"kernel {made.release}; try it: `multiroot try --new {made.out} -- uname -r`")


def lack_json(lack: Lack) -> dict[str, object]:
    """As plain data."""
    return {
        "feature": lack.feature,
        "option": lack.option.name,
        "wanted": lack.option.value,
        "is": lack.value,
        "costs": lack.option.without,
        "needed": lack.needed,
    }


def _print_lacks(lacks: tuple[Lack, ...] | list[Lack]) -> None:
    print_table(
        ("for", "option", "wanted", "is", "that costs"),
        [
            (
                each.feature + (" (needed)" if each.needed else ""),
                each.option.name,
                each.option.value,
                each.value,
                each.option.without,
            )
            for each in lacks
        ],
    )
