# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab as the page's source of facts: one that runs, one that is yet to come, one that comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.errors import MultirootError
from multiroot.lab import paths, state
from multiroot.lab.state import LabState
from multiroot.lab.watching import collector
from multiroot.page.actions import Run, run_command
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


async def events(name: str) -> AsyncIterator[Event]:
    """What there is to tell of the lab, while anybody listens. Times begin anew with each machine."""
    while True:
        lab = await _running(name)
        yield Say(0, "")
        ended = asyncio.ensure_future(_ended(lab))
        try:
            async for event in _until(ended, lab):
                yield event
        except MultirootError as error:
            yield Say(0, f"Nothing can be told of the machine: {error}")
            await asyncio.sleep(LOOK_S)
        finally:
            ended.cancel()
            with suppress(asyncio.CancelledError):
                await ended
        yield State(0, {})
        yield Say(0, "The machine has ended.")


async def _until(ended: asyncio.Future[None], lab: LabState) -> AsyncIterator[Event]:
    """What the lab's agents tell until its machine is no more."""
    async with collector(lab) as told:
        stream = told.events()
        while True:
            coming: asyncio.Future[Event] = asyncio.ensure_future(anext(stream))
            either: list[asyncio.Future[Any]] = [coming, ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                with suppress(asyncio.CancelledError):
                    await coming
                return
            try:
                yield coming.result()
            except StopAsyncIteration:
                return


async def _running(name: str) -> LabState:
    """The lab as soon as its machine runs."""
    while True:
        with suppress(MultirootError):
            found = state.load(name)
            if found.alive():
                return found
        await asyncio.sleep(LOOK_S)


async def _ended(lab: LabState) -> None:
    """Wait for the end of the machine."""
    while lab.alive():
        await asyncio.sleep(LOOK_S)


def commands(name: str) -> Run:
    """Runs commands that mean this lab, whatever other labs there are."""

    def run(argv: Sequence[str], timeout: float) -> proc.Completed:
        lab = state.load_alive(name)
        return run_command(argv, timeout, {"MULTIROOT_AGENT": lab.agent_target})

    return run
