# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs suites of kselftest in a root or a guest, each test as kselftest's own runner would."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from multiroot import proc
from multiroot.errors import MultirootError
from multiroot.lab import execution
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.verdict import ktap_read
from multiroot.verdict.points import SKIP, Outcome, Point
from multiroot.workbench.carry import Reach, put
from multiroot.workbench.kselftest import Suite

FOLDER = Path("/run/multiroot/kselftest")
# An emulated CPU is so much slower than those that the suites' limits are made for.
SLOWNESS = 10
_SHOWN = 8  # lines of a test that failed
_ASK_S = 60.0
_SIGNALS = 128
# What `timeout` of the GNU coreutils ends with, and that of BusyBox.
_TIMED_OUT = (124, _SIGNALS + 15)
_READY = """
mkdir -p "$1"
[ -d /sys/kernel/debug/tracing ] || mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
[ -e /sys/kernel/tracing/README ] || mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
true
"""
_CONFIG = "gzip -dc /proc/config.gz 2>/dev/null; true"
# Folder, test, its interpreter ("" for a program), seconds (0: no limit), "modules" if the suite has any.
# Tests that load modules look for the folder where those would be built; they are, and lie in the suite's.
_RUN = """
cd "$1" || exit 126
[ -z "$5" ] || export KDIR="$1"
if [ "$3" ] && [ ! -x "$3" ]; then echo "# SKIP there is no $3 here"; exit 4; fi
[ "$4" = 0 ] || exec timeout "$4" "./$2" 2>&1
exec "./$2" 2>&1
"""


def claim(suite: str, test: str, where: str) -> str:
    """How a test is called in a report."""
    return f"kselftest {suite}{': ' if test else ''}{test} ({where})"


def claims(suites: Sequence[Suite], where: str) -> list[str]:
    """Those of all tests, in their order."""
    return [
        claim(suite.name, test, where)
        for suite in suites
        for test in (("",) if suite.missing else suite.tests)
    ]


class Runner:
    """Runs suites in one place, which `reach` leads to. `heard` gets all that they print."""

    def __init__(
        self,
        reach: Reach,
        where: str,
        phases: Phases,
        *,
        limit_s: float | None = None,
        slowness: int = 1,
        heard: Callable[[bytes], object] = lambda _: None,
    ) -> None:
        self._reach = reach
        self._where = where
        self._phases = phases
        self._limit_s = limit_s
        self._slowness = slowness
        self._heard = heard

    def play(self, suites: Sequence[Suite]) -> Iterator[Point]:
        """A point for each test, when it has ended. Raises MultirootError when nobody can be reached."""
        for suite in suites:
            if suite.missing:
                yield Point(claim(suite.name, "", self._where), Outcome.SKIPPED, suite.missing)
                continue
            if suite.modules_of and suite.modules_of != (release := self._do(["uname", "-r"]).strip()):
                why = f"its modules are for {suite.modules_of}, and this is {release}"
                for test in suite.tests:
                    yield Point(claim(suite.name, test, self._where), Outcome.SKIPPED, why)
                continue
            with self._phases.phase(PhaseName.CARRY_IN, suite=suite.name, where=self._where):
                self._carry(suite)
                lacks = suite.lacks(self._do(["sh", "-c", _CONFIG]))
            for test in suite.tests:
                with self._phases.phase(PhaseName.RUN_KSELFTEST, test=test, where=self._where):
                    yield self._test(suite, test, lacks)

    def _carry(self, suite: Suite) -> None:
        """What all tests of a suite need; a guest has no room for all of its programs at once."""
        self._do(["sh", "-c", _READY, "sh", str(FOLDER / suite.name)])
        for place in suite.shared():
            put(self._reach, suite.folder / place, FOLDER / suite.name / place)
        for path in sorted(suite.helpers.glob("*")):
            put(self._reach, path, FOLDER / suite.helpers.name / path.name)

    def _test(self, suite: Suite, test: str, lacks: Sequence[str]) -> Point:
        folder = FOLDER / suite.name
        put(self._reach, suite.folder / test, folder / test)
        limit = self._limit_s or suite.timeout_s * self._slowness
        script = interpreter(suite.folder / test)
        modules = "modules" if suite.modules_of else ""
        argv = ["sh", "-c", _RUN, "sh", str(folder), test, script, f"{limit:.0f}", modules]
        output = bytearray()

        def hear(data: bytes) -> None:
            output.extend(data)
            self._heard(data)

        began = time.monotonic()
        self._heard(f"# {claim(suite.name, test, self._where)}\n".encode())
        with closing(self._reach()) as channel:
            code = execution.execute(channel, argv, stdin=None, stdout=hear, stderr=hear)
        seconds = time.monotonic() - began
        self._do(["rm", "-f", str(folder / test)])
        late = f"it did not end within {limit:.0f} s" if code in _TIMED_OUT and limit else ""
        name = claim(suite.name, test, self._where)
        return judged(name, code, output.decode(errors="replace"), seconds, late, lacks)

    def _do(self, argv: Sequence[str]) -> str:
        """What a command prints. Raises MultirootError if it fails."""
        with closing(self._reach()) as channel:
            done = execution.run(channel, argv, timeout=_ASK_S)
        if done.returncode:
            raise MultirootError(f"cannot prepare kselftests ({self._where}): {done.stderr.strip()}")
        return done.stdout


def interpreter(path: Path) -> str:
    """The program that runs a script; "" for one that needs none."""
    with path.open("rb") as file:
        first = file.readline(256)
    words = first[2:].split() if first.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def judged(
    name: str, code: int, output: str, seconds: float, late: str = "", lacks: Sequence[str] = ()
) -> Point:
    """What a test's exit code and output say; `late` if its time was over, `lacks` if its suite asks for what
    the kernel has not.
    """
    parts = tuple(ktap_read.read(output))
    if code == SKIP:
        return Point(name, Outcome.SKIPPED, ktap_read.why_skipped(output), (), seconds, parts)
    of = {outcome: sum(each.outcome is outcome for each in parts) for outcome in Outcome}
    told = f"{of[Outcome.HELD]} of {len(parts) - of[Outcome.SKIPPED]} parts held" if parts else ""
    if not code and parts and of[Outcome.SKIPPED] == len(parts):
        return Point(name, Outcome.SKIPPED, parts[0].seen, (), seconds, parts)
    if not code:
        return Point(name, Outcome.HELD, told, (), seconds, parts)
    how = late or proc.how_ended_in_shell(code)
    asked = f"the suite asks for {', '.join(lacks)}, which this kernel has not" if lacks else ""
    last = [line for line in output.splitlines() if line.strip()][-_SHOWN:]
    return Point(
        name, Outcome.FAILED, "; ".join(filter(None, (how, told, asked))), tuple(last), seconds, parts
    )
