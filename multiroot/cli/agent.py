# SPDX-License-Identifier: GPL-2.0-or-later
"""Which agent a command talks to, what that says of its root, and what happens when one leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from multiroot.cli.commands import Run
from multiroot.errors import BadRequestError, MultirootError, PeerLostError, WaitTimeoutError

if TYPE_CHECKING:
    import grpc

    from multiroot.lab.state import LabState
    from multiroot.rpc.client import Address
    from multiroot.rpc.v1 import root_pb2


def agent_target() -> Address:
    """Where the agent to ask is: at $MULTIROOT_AGENT, else this root's own, else the running lab's.

    Raises PeerLostError when there is none, BadRequestError when several labs run and any could be meant.
    """
    from multiroot.rpc.client import AGENT_SOCKET, Address

    target = os.environ.get("MULTIROOT_AGENT")
    if not target and AGENT_SOCKET.exists():
        return Address(f"unix:{AGENT_SOCKET}")
    # Only a workstation has labs. A command that runs in a root need not load what knows of them.
    from multiroot.lab.state import at, running

    if target:
        _check(target)
    lab = at(target) if target else running()
    if lab:
        _remember(lab)
        return lab.agent_address
    if target:
        return Address(target)
    raise PeerLostError("no agent to talk to", "run this in a root, or start a lab with `multiroot lab up`")


def _remember(lab: LabState) -> None:
    """Whose agent is asked: once it has ended, nobody could tell."""
    context = click.get_current_context(silent=True)
    if run := context and context.find_object(Run):
        run.lab = lab


def explained(error: MultirootError, lab: LabState | None) -> MultirootError:
    """What to say in place of `error`: the lab machine has ended, if its agent is silent because of that."""
    if lab is None or not isinstance(error, PeerLostError | WaitTimeoutError):
        return error
    from multiroot.lab.trouble import check_machine

    try:
        check_machine(lab)
    except PeerLostError as ended:
        return ended
    return error


def _check(target: str) -> None:
    """Raises BadRequestError for what names no agent; gRPC would take 99999 for another port."""
    _, colon, port = target.rpartition(":")
    if target.startswith("unix:/") or (colon and port.isdecimal() and 0 < int(port) < 1 << 16):
        return
    raise BadRequestError(
        f"MULTIROOT_AGENT names no agent: {target!r}", "export MULTIROOT_AGENT=127.0.0.1:PORT, or unix:/PATH"
    )


def connect(root: str | None = None) -> grpc.Channel:
    """A channel to that agent; calls mean `root` ("old", "new", a number), None is the agent's own root."""
    from multiroot.rpc.client import connect as connect_to

    return connect_to(agent_target(), root=root)


def status_of(root: str | None = None) -> root_pb2.RootStatus:
    """What a root says of itself; `root` as in `connect`."""
    from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

    with connect(root) as channel:
        return root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)


def lab_of_agent() -> LabState | None:
    """The lab whose agent commands talk to; None if that is a root's own."""
    target = agent_target().target
    if target.startswith("unix:"):
        return None
    from multiroot.lab.state import at

    return at(target)


@contextmanager
def goes_on(look: str, what: str = "the agent goes on with it") -> Iterator[None]:
    """The body has an agent do something. Who leaves it by Ctrl-C is told what happens then, and `look`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        error.add_note(f"{what}: {look}")
        raise
