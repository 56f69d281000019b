# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo for those who look on: on the terminal, into a recording, step by step, by a script."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.keys import wait_for_key
from multiroot.cli.lab_options import LabChoice
from multiroot.cli.output import Progress, print_table, say
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.phases import Phase, Phases

if TYPE_CHECKING:
    from multiroot.cli.watch_output import Output
    from multiroot.demo.stage import Audience
    from multiroot.demo.talk import Took
    from multiroot.watch.events import Event
    from multiroot.watch.view import View

_FILE = click.Path(path_type=Path)


def stage_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --live, --pause, --record, --script and --rehearse; the command gets `showing: Showing`."""

    @functools.wraps(function)
    def command(
        live: bool, pause: bool, record: Path | None, script: Path | None, rehearse: bool, **others: Any
    ) -> Any:
        return function(showing=Showing(live, pause, record, script, rehearse), **others)

    decorated: Callable[..., Any] = command
    for option in reversed(
        (
            click.option("--live", is_flag=True, help="Show the whole machine while it plays."),
            click.option("--pause", is_flag=True, help="Wait for a key before each step."),
            click.option(
                "--record", type=OUTPUT_FILE, metavar="FILE", help="Write all that is seen to a recording."
            ),
            click.option(
                "--script", type=_FILE, metavar="FILE", help="Play a talk by its script (docs/watch.md)."
            ),
            click.option("--rehearse", is_flag=True, help="Play the script with nobody there, and time it."),
        )
    ):
        decorated = option(decorated)
    return decorated


@dataclass(frozen=True)
class Showing:
    """What these options say."""

    live: bool
    pause: bool
    record: Path | None
    script: Path | None
    rehearse: bool

    @property
    def shows(self) -> bool:
        """Whether anybody looks on at all."""
        return self.live or self.pause or self.record is not None

    def check(self) -> None:
        """Raises UsageError for what does not go together."""
        if self.rehearse and not self.script:
            raise click.UsageError("--rehearse is for a talk: say --script FILE.")
        if self.rehearse and self.pause:
            raise click.UsageError("nobody presses keys when you --rehearse: leave --pause out.")
        if self.pause and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("--pause waits for a key, and this is no terminal.")


@contextmanager
def opened(
    showing: Showing, *, live: bool, title: str = "A launch and a handoff"
) -> Iterator[tuple[Phases, Audience]]:
    """Phases, and those who look on. Before there is anything to see, phases are shown as always. `title` is
    that of a recording.
    """
    from multiroot.demo.stage import Audience
    from multiroot.watch.recording import Recorder

    phases = Phases("workstation")
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(showing.record, title)) if showing.record else None
        screen = _Screen(live)
        stack.callback(screen.close)
        phases.subscribe(screen.show_phase)

        def hear(event: Event, view: View) -> None:
            if recorder:
                recorder.write(event)
            screen.hear(event, view)

        yield phases, Audience(hear, wait_for_key if showing.pause else None)


class _Screen:
    """Lines of phases until the machine can be seen, then that, if it is to be shown."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._progress = Progress()
        self._stack = ExitStack()
        self._output: Output | None = None

    def show_phase(self, phase: Phase) -> None:
        """Unless the screen is taken."""
        if self._output is None or not sys.stdout.isatty():
            self._progress(phase)

    def hear(self, event: Event, view: View) -> None:
        """In the thread that watches."""
        if not self._live:
            return
        if self._output is None:
            from multiroot.cli.watch_output import output

            self._output = self._stack.enter_context(output(as_json=False))
        self._output.show(event, view)

    def close(self) -> None:
        """The terminal is a person's again."""
        self._output = None
        self._stack.close()


def play_talk(showing: Showing, lab: LabChoice, *, keep: bool) -> None:
    """Play it, and say how long each part took."""
    from multiroot.demo import talk, talk_script

    assert showing.script
    script = talk_script.read(showing.script)
    options = talk.Options(
        script,
        lab.options(
            kernel=script.old_kernel, kernels=script.kernels, vms=script.vms, vm_memory=script.vm_memory
        ),
        keep,
    )
    # A talk is for somebody to see, a rehearsal for a file.
    live = showing.live or not showing.rehearse
    alone = showing.rehearse or not (sys.stdin.isatty() and sys.stdout.isatty())
    with opened(showing, live=live, title=script.title) as (phases, audience):
        took = talk.play(options, phases, audience, None if alone else wait_for_key)
    _print_times(script.title, took)


def _print_times(title: str, took: Sequence[Took]) -> None:
    print_table(
        ("step", "what", "says", "took s >", "tries >", "rest s >"),
        [
            (
                each.number,
                each.part.do or "text",
                each.part.say,
                f"{each.did_s:.1f}",
                each.retries + 1 if each.part.do in ("launch", "next") else "",
                f"{each.waited_s:.1f}",
            )
            for each in took
        ],
        title=title,
    )
    say(f"all of it: {sum(each.did_s + each.waited_s for each in took):.1f} s")


def print_script(showing: Showing) -> None:
    """What would be done."""
    from multiroot.demo import talk_script

    assert showing.script
    for number, part in enumerate(talk_script.read(showing.script).step, 1):
        key = ", waits for a key" if part.pause else ""
        kernel = f" {part.kernel}" if part.kernel else ""
        say(f"step {number}: {part.do or 'text'}{kernel}{key}, {part.wait:g} s of rest: {part.say}")
