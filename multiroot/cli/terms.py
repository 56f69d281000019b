# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of several commands: how VMs are handed over, and how long a new root may take to join."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from multiroot.rpc.v1 import coordinator_pb2

F = TypeVar("F", bound=Callable[..., Any])

# As in multiroot/handoff/terms.py, which takes longer to import than a command line may; a test compares.
DOWNTIME_LIMIT_MS, DOWNTIME_MOST_MS = 300, 30_000
GROUP_MOST, PREPARING, PREPARING_MOST = 8, 4, 32
ORDERS = ("given", "smallest", "largest")


join_option = click.option(
    "--timeout",
    type=click.IntRange(0, 86400),
    default=0,
    envvar="MULTIROOT_JOIN_TIMEOUT",
    show_envvar=True,
    help="Seconds to wait for its agent (0: the default).",
)


preparing_option = click.option(
    "--preparing",
    type=click.IntRange(1, PREPARING_MOST),
    default=PREPARING,
    show_default=True,
    help="How many VMs are prepared at once.",
)


def downtime_option(default: int | None) -> Callable[[F], F]:
    """How long a VM may stand still, ms. Without a `default` it is as it was told before."""
    return click.option(
        "--downtime-limit",
        "downtime_limit_ms",
        metavar="MS",
        type=click.IntRange(1, DOWNTIME_MOST_MS),
        default=default,
        show_default=default is not None,
        envvar="MULTIROOT_DOWNTIME_LIMIT" if default else None,
        show_envvar=True,
        help="A VM that stands still for longer before it is the other root's stays and goes on.",
    )


def terms_options(command: F) -> F:
    """Adds the options whose values `terms_message` takes."""
    options = (
        downtime_option(DOWNTIME_LIMIT_MS),
        click.option(
            "--group",
            type=click.IntRange(1, GROUP_MOST),
            default=1,
            show_default=True,
            help="How many VMs may stand still at once.",
        ),
        preparing_option,
        click.option(
            "--order",
            type=click.Choice(ORDERS),
            default=ORDERS[0],
            show_default=True,
            help="Which goes first: as given (all: by name), or the one with the least, or most, RAM.",
        ),
        click.option("--first", multiple=True, metavar="VM", help="A VM to go first; may be repeated."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def terms_message(
    downtime_limit_ms: int, group: int, preparing: int, order: str, first: tuple[str, ...]
) -> coordinator_pb2.HandoffTerms:
    """What the options said."""
    from multiroot.rpc.v1 import coordinator_pb2

    return coordinator_pb2.HandoffTerms(
        downtime_limit_ms=downtime_limit_ms, group=group, preparing=preparing, order=order, first=first
    )
