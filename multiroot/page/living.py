# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab as the page's source of facts: one that runs, one that is yet to come, one that comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.errors import MultirootError
from multiroot.lab import paths, state
from multiroot.lab.state import LabState
from multiroot.lab.visitors import Door, Visitors, beside
from multiroot.lab.watching import collector
from multiroot.page.actions import run_command
from multiroot.rpc.token import make_token, read_token
from multiroot.watch.events import Event, Say, State

LOOK_S = 0.5  # nothing tells of a lab that is being made or that has ended: it is looked for


def token(name: str) -> str:
    """The page's token for a lab, in a file that nobody but its owner may read; made if it is not there."""
    file = token_file(name)
    if not file.exists():
        make_token(file)
        paths.give_to_user(file)
    return read_token(file)


def token_file(name: str) -> Path:
    """Where it is. Not in the lab's folder, which goes when the lab is started anew."""
    return paths.make_dir(paths.state_dir() / "page") / f"{name}.token"


class Living:
    """The lab of that name, whichever machine it is at the time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._visitors: Visitors | None = None

    @property
    def board(self) -> Door | None:
        """The board that one of its guests keeps, once it is found."""
        return self._visitors.board if self._visitors else None

    def command(self, argv: Sequence[str], timeout: float) -> proc.Completed:
        """Run a command that means this lab, whatever other labs there are."""
        lab = state.load_alive(self._name)
        return run_command(argv, timeout, {"MULTIROOT_AGENT": lab.agent_target})

    async def events(self) -> AsyncGenerator[Event, None]:
        """What there is to tell, while anybody listens. Times begin anew with each machine."""
        while True:
            lab = await self._running()
            yield Say(0, "")
            try:
                async with aclosing(self._machine(lab)) as told:
                    async for event in told:
                        yield event
            except MultirootError as error:
                yield Say(0, f"Nothing can be told of the machine: {error}")
                await asyncio.sleep(LOOK_S)
            else:
                yield State(0, {})
                yield Say(0, "The machine has ended.")

    async def _machine(self, lab: LabState) -> AsyncGenerator[Event, None]:
        """What is told of one machine until it is no more."""
        self._visitors = visitors = Visitors(lab)
        async with (
            collector(lab) as told,
            beside(_ended(lab)) as ended,
            beside(visitors.run(told)),
            aclosing(told.events()) as stream,
            aclosing(_until(stream, ended)) as events,
        ):
            async for event in events:
                yield event

    async def _running(self) -> LabState:
        """The lab as soon as its machine runs."""
        while True:
            with suppress(MultirootError):
                found = state.load(self._name)
                if found.alive():
                    return found
            await asyncio.sleep(LOOK_S)


async def _until(
    stream: AsyncGenerator[Event, None], ended: asyncio.Future[None]
) -> AsyncGenerator[Event, None]:
    """What comes until it ends, or the machine has `ended`. Nothing is left that waits for more."""
    coming = asyncio.ensure_future(anext(stream, None))
    try:
        while True:
            either: list[asyncio.Future[Any]] = [coming, ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            event = coming.result() if coming.done() else None
            if event is None:
                return
            coming = asyncio.ensure_future(anext(stream, None))
            yield event
    finally:
        await _cancelled(coming)


async def _ended(lab: LabState) -> None:
    """Wait for the end of the machine."""
    while lab.alive():
        await asyncio.sleep(LOOK_S)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
