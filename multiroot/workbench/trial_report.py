# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trial saw, and what follows from it. Pure: observations in, points and an exit code out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multiroot import proc
from multiroot.phases import Phase
from multiroot.verdict.findings import Finding
from multiroot.verdict.points import SKIP, Outcome, Point, held, point
from multiroot.workbench.carry import CANNOT_RUN
from multiroot.workbench.look import Answer, Identity

GOOD, BAD, UNTESTED = 0, 1, 125
_SIGNALS = 128  # exit codes from here on are those of programs that a signal ended
_SHOWN = 5  # findings of one kernel that a point names


@dataclass(frozen=True)
class Step:
    """A step that was taken. `seen` is what came of it; one that did not hold is the last."""

    name: str
    held: bool
    seen: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Command:
    """The command of a trial and how it ended; `code` is None if it was not run."""

    words: tuple[str, ...]
    where: str
    code: int | None = None
    seconds: float = 0.0


@dataclass
class Trial:
    """One run. `planned` names the steps that were to be taken. `untested` is why nothing can be said, or "".
    `suites` are the tests of kselftest that were to run, `ran` the points of those that did. `answers`
    are those of kernels that were asked, the last one of each. `ticks_lost` is None if no guest was watched.
    """

    planned: tuple[str, ...]
    steps: list[Step] = field(default_factory=list)
    command: Command | None = None
    suites: list[str] = field(default_factory=list)
    ran: list[Point] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    listened: list[str] = field(default_factory=list)  # roots and guests whose consoles were read
    answers: dict[str, Answer] = field(default_factory=dict)  # by what a report calls the root
    ticks_lost: int | None = None
    ticks: int = 0
    resets: int = 0
    untested: str = ""
    backtraces: list[str] = field(default_factory=list)  # of a new root that was lost, by its memory
    phases: tuple[Phase, ...] = ()

    @property
    def counted(self) -> list[Finding]:
        """The findings that are not allowed."""
        return [each for each in self.findings if not each.allowed]

    def points(self) -> list[Point]:
        """Every claim of the trial."""
        points = [Point(step.name, *_outcome(step), seconds=step.seconds) for step in self.steps]
        points += [Point(name, Outcome.SKIPPED, "not reached") for name in self.planned[len(self.steps) :]]
        points += self.ran
        points += [Point(claim, Outcome.SKIPPED, "not reached") for claim in self.suites[len(self.ran) :]]
        points += [
            point(f"{each.called} ran the kernel that was asked for", each.same, _told(each))
            for each in self.identities
        ]
        points += [self._quiet(where) for where in self.listened]
        points += [self._no_leaks(each) for each in self.answers.values()]
        points.append(point("the machine was never reset", not self.resets, f"{self.resets} resets"))
        if self.ticks_lost is not None:
            lost = f"{self.ticks} ticks, {self.ticks_lost} missing or repeated"
            points.append(point("the guest lost and repeated no tick", not self.ticks_lost, lost))
        return points + ([_ended(self.command)] if self.command else [])

    def _quiet(self, where: str) -> Point:
        found = [each for each in self.findings if each.source.where == where]
        bad = [each for each in found if not each.allowed]
        seen = f"{len(bad)} findings" + (
            f", {len(found) - len(bad)} allowed" if len(found) > len(bad) else ""
        )
        who = f"the {where} root's kernel" if where in ("old", "new") else f"the kernel of {where}"
        return point(f"{who} reports no trouble", not bad, seen, [each.headline for each in bad[:_SHOWN]])

    def _no_leaks(self, answer: Answer) -> Point:
        claim = f"kmemleak finds nothing in {answer.called}"
        if answer.scan.why_none:
            return Point(claim, Outcome.SKIPPED, answer.scan.why_none)
        leaks = [each for each in self.counted if each.kind == "kmemleak"]
        found = [each for each in leaks if each.source.same_kernel(answer.source)]
        return point(claim, not found, f"{answer.facts.release}: {len(found)} leaks")

    @property
    def held(self) -> bool:
        """Whether everything that was looked at held."""
        return not self.untested and held(self.points())

    def code(self) -> int:
        """What to exit with: 0 good, 1 bad, 125 not tested, or the command's own code if that says it
        is bad.
        """
        if self.untested:
            return UNTESTED
        own = self.command.code if self.command else None
        others = self.points()[: -1 if self.command else None]
        if not held(others):
            return own if own and own < UNTESTED else BAD
        if not own:
            return GOOD
        if own == UNTESTED or own in CANNOT_RUN:
            return UNTESTED
        return BAD if own >= _SIGNALS else own

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "code": self.code(),
            "held": self.held,
            "untested": self.untested,
            "command": asdict(self.command) if self.command else None,
            "points": [asdict(each) for each in self.points()],
            "kernels": [asdict(each) | {"same": each.same} for each in self.identities],
            "findings": [each.to_json() for each in self.findings],
            "backtraces": self.backtraces,
            "phases": [
                {
                    "name": each.name,
                    "side": each.side,
                    "seconds": (each.duration_ns or 0) / 1e9,
                    "ok": each.ok,
                }
                for each in self.phases
            ],
        }


def _outcome(step: Step) -> tuple[Outcome, str]:
    return (Outcome.HELD if step.held else Outcome.FAILED), step.seen


def _told(identity: Identity) -> str:
    if identity.same:
        return str(identity.ran)
    return f"asked for {identity.asked}; ran {identity.ran}"


def _ended(command: Command) -> Point:
    claim = f"{' '.join(command.words)} exits with 0 ({command.where})"
    if command.code is None:
        return Point(claim, Outcome.SKIPPED, "not reached")
    if command.code == SKIP:
        return Point(claim, Outcome.SKIPPED, f"it exited with {SKIP}", seconds=command.seconds)
    how = proc.how_ended_in_shell(command.code)
    outcome = Outcome.FAILED if command.code else Outcome.HELD
    return Point(claim, outcome, how, seconds=command.seconds)


@dataclass(frozen=True)
class Repeated:
    """The same trial several times."""

    trials: Sequence[Trial]

    @property
    def bad(self) -> int:
        """How many were judged bad."""
        return sum(each.code() not in (GOOD, UNTESTED) for each in self.trials)

    @property
    def tested(self) -> int:
        """How many said anything."""
        return sum(each.code() != UNTESTED for each in self.trials)

    @property
    def flake_rate(self) -> float:
        """The share of bad ones among those that said anything; 0 if none did."""
        return self.bad / self.tested if self.tested else 0.0

    def code(self) -> int:
        """The first bad one's, or 125 if none could be tested."""
        codes = [each.code() for each in self.trials]
        bad = [code for code in codes if code not in (GOOD, UNTESTED)]
        return bad[0] if bad else GOOD if self.tested else UNTESTED

    def points(self) -> list[Point]:
        """Those of all trials, each named by its number if there are several."""
        if len(self.trials) == 1:
            return self.trials[0].points()
        return [
            Point(f"trial {number}: {each.claim}", each.outcome, each.seen, each.details, each.seconds)
            for number, trial in enumerate(self.trials, 1)
            for each in trial.points()
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain data; of a single trial, that alone."""
        if len(self.trials) == 1:
            return self.trials[0].to_json()
        return {
            "code": self.code(),
            "trials": [each.to_json() for each in self.trials],
            "bad": self.bad,
            "tested": self.tested,
            "flake_rate": self.flake_rate,
        }
