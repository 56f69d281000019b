# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot watch`: the whole machine as it is and as it changes, live or from a recording."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from multiroot.cli.agent import agent_target
from multiroot.cli.commands import Command
from multiroot.cli.numbers import FiniteRange
from multiroot.cli.output import json_option, print_json
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.errors import PeerLostError, StrangerError
from multiroot.watch import loops

if TYPE_CHECKING:
    from multiroot.lab.state import LabState
    from multiroot.rpc.client import Address
    from multiroot.watch.collect import Collector
    from multiroot.watch.events import Event
    from multiroot.watch.recording import Recorder
    from multiroot.watch.view import View

FILE = click.Path(path_type=Path)
IDLE_S = 0.2  # nothing has come for so long: a screen that lags behind may catch up
MACHINE_LOOK_S = 1.0  # so long nothing has come: it is looked whether a lab's machine still runs
HEARD_S = 5.0  # by then an agent has answered, or there is none


@click.command(cls=Command, example="multiroot watch --record run.mrlog")
@click.option("--once", is_flag=True, help="Show what is known now, and end.")
@click.option(
    "--record", type=OUTPUT_FILE, metavar="FILE", help="Write all that is seen to a recording, too."
)
@click.option("--replay", type=FILE, metavar="FILE", help="Show a recording. No lab and no agent is needed.")
@click.option(
    "--speed",
    type=FiniteRange(min=0),
    default=1.0,
    show_default=True,
    help="Of the replay: 2 is twice as fast, 0 as fast as it goes.",
)
@json_option
def watch(once: bool, record: Path | None, replay: Path | None, speed: float, as_json: bool) -> None:
    """Watch roots, CPUs, memory, VMs and the update as they change, until Ctrl-C.

    On a terminal it is one screen. Elsewhere there is a line for each change, with --json a JSON object for
    each event (docs/watch.md).
    """
    if replay and (record or once):
        raise click.UsageError("--replay shows what was recorded: leave --record and --once out.")
    if record and once:
        raise click.UsageError("--once records nothing: leave --record out.")
    if replay:
        loops.run(_show(_replayed(replay, speed), None, as_json))
        return
    address = agent_target()
    if once:
        _show_once(loops.run(_first(address)), as_json)
        return
    with ExitStack() as stack:
        recorder = None
        if record:
            from multiroot.watch.recording import Recorder

            recorder = stack.enter_context(Recorder(record))
        loops.run(_show(_live(address), recorder, as_json))


async def _replayed(path: Path, speed: float) -> AsyncGenerator[Event, None]:
    from multiroot.watch.recording import Recording
    from multiroot.watch.replay import play

    recording = Recording(path)
    recording.check()
    async for event in play(recording, speed):
        yield event


def collector_for(address: Address) -> Collector:
    """Watches the machine of the agent at `address`; for a lab's it knows what the lab knows."""
    from multiroot.watch.collect import Collector

    lab = _lab_at(address)
    if lab is None:
        return Collector(address)
    from multiroot.lab import watching

    return watching.collector(lab)


def _lab_at(address: Address) -> LabState | None:
    if address.target.startswith("unix:"):
        return None
    from multiroot.lab import state

    return state.at(address.target)


async def _live(address: Address) -> AsyncGenerator[Event, None]:
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(collector_for(address))
        with suppress(TimeoutError):
            # Once an agent has spoken, its silence is told like all else. One that never does is an error.
            async with asyncio.timeout(HEARD_S):
                await collector.wait(lambda facts: bool(facts.roots))
        _check_heard(collector, address)
        events = await stack.enter_async_context(aclosing(collector.events()))
        if lab := _lab_at(address):
            events = await stack.enter_async_context(aclosing(while_it_runs(events, lab)))
        async for event in events:
            yield event


async def while_it_runs(events: AsyncGenerator[Event, None], lab: LabState) -> AsyncGenerator[Event, None]:
    """What comes of a lab's machine as long as there is one; raises PeerLostError when it has ended."""
    from multiroot.lab.trouble import check_machine

    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            await asyncio.wait({coming}, timeout=MACHINE_LOOK_S)
            if not coming.done():
                check_machine(lab)
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event
            coming = asyncio.ensure_future(anext(events))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


def _check_heard(collector: Collector, address: Address) -> None:
    if collector.view.facts.roots:
        return
    why = collector.trouble
    if isinstance(why, StrangerError):
        raise why
    told = f": {why.message}" if why else ""
    raise PeerLostError(f"no agent answers at {address}{told}", why.hint if why else "")


async def _first(address: Address) -> View:
    """What is known as soon as every root that lives has spoken, or has had the time to."""
    from multiroot.watch.facts import RootState

    waiting = (RootState.STARTING, RootState.UNKNOWN)
    async with collector_for(address) as collector:
        await collector.tried()
        _check_heard(collector, address)
        with suppress(TimeoutError):
            # What there is to see then is shown.
            async with asyncio.timeout(HEARD_S):
                await collector.wait(lambda facts: all(r.state not in waiting for r in facts.roots.values()))
        return collector.view


async def _show(events: AsyncGenerator[Event, None], recorder: Recorder | None, as_json: bool) -> None:
    from multiroot.cli.watch_output import output
    from multiroot.watch.view import View

    view = View()
    async with aclosing(events) as told:
        with output(as_json=as_json) as shown:
            async with aclosing(_or_none(told)) as heard:
                async for event in heard:
                    if event is None:
                        shown.idle(view)
                        continue
                    view.apply(event)
                    if recorder is not None:
                        recorder.write(event)
                    shown.show(event, view)


async def _or_none(told: AsyncGenerator[Event, None]) -> AsyncGenerator[Event | None, None]:
    """The events, and None where none comes for a moment."""
    following = asyncio.ensure_future(anext(told, None))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=IDLE_S)
            if not done:
                yield None
                continue
            event = following.result()
            if event is None:
                return
            following = asyncio.ensure_future(anext(told, None))
            yield event
    finally:
        following.cancel()
        await asyncio.wait({following})


def _show_once(view: View, as_json: bool) -> None:
    if as_json:
        print_json(view.document)
        return
    from multiroot.cli.output import console
    from multiroot.cli.watch_output import frame

    out = console()
    out.print(frame(view, out.width, 1000))
