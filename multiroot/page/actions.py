# SPDX-License-Identifier: GPL-2.0-or-later
"""What the page's buttons do: commands of `multiroot`, each with what it would do and what it would lose.

A button runs the very command that a person would type, so page and command line cannot drift apart.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from multiroot import proc
from multiroot.errors import BadRequestError, ConflictError
from multiroot.page import would
from multiroot.watch.facts import Facts

DRY_RUN_S = 60.0
ACTION_S = 1800.0  # an update under emulation takes minutes; nothing takes half an hour
_SAID = 4000  # characters of a command's output that the page gets

_LASTING = ("committed", "retiring")  # states that nothing takes back

Run = Callable[[Sequence[str], float], proc.Completed]


class When(Enum):
    """How things stand when an action makes sense."""

    ALONE = auto()  # no update has begun, and there is no new root
    BESIDE = auto()  # there is a new root
    BEGUN = auto()  # something of an update can be taken back, be it of a new root that has crashed


@dataclass(frozen=True)
class Action:
    """A button. `text` says what will happen; `argv` and `dry` are words after `multiroot`.

    Without `dry`, what it would do is told from the facts (`would.py`). `loses` says what cannot be undone:
    the page asks before it does that. `when` it makes sense.
    """

    name: str
    title: str
    text: str
    argv: tuple[str, ...]
    dry: tuple[str, ...] = ()
    loses: str = ""
    when: When = When.BESIDE

    def command(self) -> str:
        """As one would type it."""
        return proc.quote(["multiroot", *self.argv])


def catalogue(kernel: str, lab: str) -> dict[str, Action]:
    """All actions by name; `kernel` is what a new root boots, `lab` the lab's name."""
    update = ("update", "--kernel", kernel)
    crash = "(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"
    actions = (
        Action(
            "launch",
            "Launch",
            "Starts a second kernel on CPUs and memory of this machine. The VMs go on.",
            ("root", "launch", "--kernel", kernel),
            dry=("root", "launch", "--kernel", kernel, "--dry-run"),
            when=When.ALONE,
        ),
        Action(
            "hand-over",
            "Hand over",
            "Hands every VM to the new kernel. Memory stays where it is; only device state moves.",
            ("handoff", "start", "--all", "--to", "new"),
        ),
        Action(
            "back",
            "Back",
            "Hands every VM back to the old kernel, in the same way.",
            ("handoff", "start", "--all", "--to", "old"),
        ),
        Action(
            "abort",
            "Abort",
            "Takes everything back: VMs first, then CPUs and memory. The new kernel ends.",
            ("update", "abort"),
            when=When.BEGUN,
        ),
        Action(
            "crash",
            "Crash the new kernel",
            "Makes the new kernel panic. VMs in the old kernel do not notice.",
            ("lab", "exec", "--name", lab, "--root", "new", "--", "sh", "-c", crash),
            loses="The new kernel and every VM that runs in it are lost.",
        ),
        Action(
            "retire",
            "Retire",
            "Ends the old kernel. The new one adopts its CPUs, memory and devices.",
            ("update", "resume", "--until", "retire"),
            loses="The old kernel ends. There is no way back from here.",
        ),
        Action(
            "next",
            "Next generation",
            "A whole update in one go: a new kernel, every VM handed to it, the old one ended.",
            update,
            dry=(*update, "--dry-run"),
            loses="The old kernel ends, and is not there to go back to.",
            when=When.ALONE,
        ),
    )
    return {action.name: action for action in actions}


def run_command(argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> proc.Completed:
    """Run `multiroot ARGV` as it is installed here, and wait for its end."""
    words = [sys.executable, "-m", "multiroot.cli.main", *argv]
    return proc.run(words, check=False, timeout=timeout, env=env)


def possible(when: When, facts: Facts) -> bool:
    """Whether things stand so."""
    beside = would.root_in(facts, "new") is not None
    update = facts.update
    match when:
        case When.ALONE:
            taking = update.taking_over not in ("", "done")
            return not beside and update.state == "idle" and not taking
        case When.BESIDE:
            return beside
        case When.BEGUN:
            return update.state not in ("idle", *_LASTING)


class Actions:
    """Runs one action at a time and remembers what the last one said."""

    def __init__(self, known: Mapping[str, Action], run: Run = run_command) -> None:
        self._known = known
        self._run = run
        self._busy = ""

    @property
    def busy(self) -> str:
        """The name of the action that runs; "" if none does."""
        return self._busy

    def listed(self, facts: Facts) -> list[dict[str, Any]]:
        """All of them for the page, with what each would lose as things stand."""
        return [
            {
                "name": action.name,
                "title": action.title,
                "text": action.text,
                "command": action.command(),
                "loses": self.loses(action, facts),
                "possible": possible(action.when, facts),
            }
            for action in self._known.values()
        ]

    def loses(self, action: Action, facts: Facts) -> str:
        """What cannot be undone, with the names of VMs that a crash would take along."""
        lost = would.vms_in(facts, "new") if action.name == "crash" else []
        return f"{action.loses} Running there now: {', '.join(lost)}." if lost else action.loses

    def get(self, name: str) -> Action:
        """Raises BadRequestError for a name that is none."""
        if name not in self._known:
            raise BadRequestError(f"no action {name!r}", f"one of {', '.join(self._known)}")
        return self._known[name]

    async def try_out(self, name: str, facts: Facts) -> dict[str, Any]:
        """What the action would do: by its command's own --dry-run where it has one, else by the facts."""
        action = self.get(name)
        if not action.dry:
            return {"command": action.command(), "code": 0, "said": "\n".join(would.lines(name, facts))}
        done = await asyncio.to_thread(self._run, action.dry, DRY_RUN_S)
        return _told(["multiroot", *action.dry], done)

    async def act(self, name: str, facts: Facts, *, confirmed: bool) -> dict[str, Any]:
        """Do it, and tell how it ended. Raises ConflictError while another one runs, or if something would
        be lost and nobody has confirmed that.
        """
        action = self.get(name)
        if self.loses(action, facts) and not confirmed:
            raise ConflictError(f"{action.title}: {self.loses(action, facts)}", "confirm it")
        if self._busy:
            raise ConflictError(f"{self.get(self._busy).title} still runs", "wait for its end")
        self._busy = name
        try:
            done = await asyncio.to_thread(self._run, action.argv, ACTION_S)
        finally:
            self._busy = ""
        return _told(["multiroot", *action.argv], done)


def _told(words: Sequence[str], done: proc.Completed) -> dict[str, Any]:
    said = "\n".join(part.strip() for part in (done.stdout, done.stderr) if part.strip())
    return {"command": proc.quote(words), "code": done.returncode, "said": said[-_SAID:]}
