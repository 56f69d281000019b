# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot try`: what is asked for, how the verdict is told, and what it exits with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli.conftest import Run

from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.verdict.findings import find
from multiroot.workbench import kselftest
from multiroot.workbench import trial as trials
from multiroot.workbench.carry import Streams
from multiroot.workbench.kselftest import Suite, Wish
from multiroot.workbench.trial_report import Command, Step, Trial
from multiroot.workbench.wanted import Until, Wanted, Where

GOOD = Trial(("boots",), [Step("boots", True)], Command(("true",), "new", 0), listened=["old"])
WARNING = "[ 5.000000] WARNING: CPU: 0 PID: 1 at a.c:1 b+0x1/0x2"
BAD = replace(GOOD, findings=find(["[ 4.900000] before", WARNING], "old", "6.12.1"))


class Played:
    """Notes what trials were asked for; each ends as the next of `results`, the last one again and again."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []
        self.results: list[Trial | BaseException] = [GOOD]
        self.does: Callable[[Streams], object] = lambda streams: None

    def run(self, wanted: Wanted, phases: object, streams: Streams) -> Trial:
        self.wanted.append(wanted)
        self.does(streams)
        result = self.results[min(len(self.wanted), len(self.results)) - 1]
        if isinstance(result, BaseException):
            raise result
        return result


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    seen = Played()
    monkeypatch.setattr(trials, "run", seen.run)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)  # pytest's has no number
        yield seen


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--matrix", "m.toml", "--", "true"), "--matrix has all of a trial in its file: leave CMD out"),
        (("--matrix", "m.toml", "--old", "6.1"), "leave --old out"),
        (("--changed", "--", "true"), "--changed is for --matrix"),
        (("--output", "x", "--", "true"), "--output is for --matrix"),
        (("--json", "no-such/x.json", "--", "true"), "there is no folder"),
        (("--junit", ".", "--", "true"), "is a folder (name a file"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_takes_time(
    run: Run, played: Played, words: tuple[str, ...], says: str
) -> None:
    done = run("try", *words)
    assert done.code == 125
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not played.wanted


def test_a_good_one(run: Run, played: Played) -> None:
    words = ("--old", "6.1", "--new", "7.x", "--append-new", "debug", "--timeout", "5", "--name", "mine")
    words += ("--append-guest", "kho=on liveupdate=on")
    done = run("try", *words, "--", "uname", "-r")
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("good\n")
    (wanted,) = played.wanted
    assert (wanted.command, wanted.where, wanted.until) == (("uname", "-r"), Where.NEW, Until.HANDOVER)
    assert (wanted.lab.kernel, wanted.lab.kernels, wanted.new, wanted.lab.name) == (
        "6.1",
        ("7.x",),
        "7.x",
        "mine",
    )
    assert (wanted.append_new, wanted.timeout_s, wanted.lab.attempts) == ("debug", 5.0, 1)
    assert wanted.append_guest == "kho=on liveupdate=on"


@pytest.mark.parametrize(
    ("words", "where", "until"),
    [
        (("--in", "old"), Where.OLD, Until.BOOT),
        (("--in", "old", "--new", "6.1"), Where.OLD, Until.HANDOVER),
        (("--until", "boot"), Where.OLD, Until.BOOT),
        (("--until", "launch"), Where.NEW, Until.LAUNCH),
        (("--in", "workstation", "--until", "update"), Where.WORKSTATION, Until.UPDATE),
    ],
)
def test_where_and_until_when(
    run: Run, played: Played, words: tuple[str, ...], where: Where, until: Until
) -> None:
    assert run("try", *words, "--", "true").code == 0
    assert (played.wanted[0].where, played.wanted[0].until) == (where, until)


def test_a_bad_one_shows_what_was_said(run: Run, played: Played, tmp_path: Path) -> None:
    played.results = [BAD]
    done = run("try", "--json", tmp_path / "seen", "--", "true")
    assert (done.code, done.out) == (1, "")
    assert "warning in old (6.12.1) at 5.000000 s" in done.err
    assert "    before\n" in done.err
    assert json.loads((tmp_path / "seen").read_text())["findings"][0]["kind"] == "warning"


def test_output_of_a_test_is_a_comment_in_ktap(run: Run, played: Played) -> None:
    played.does = lambda streams: [streams.stdout(each) for each in (b"one\ntw", b"o\n")]
    done = run("try", "--ktap", "--", "true")
    assert done.out.splitlines() == [
        "# one",
        "# two",
        "KTAP version 1",
        "1..4",
        "ok 1 boots",
        "ok 2 the old root's kernel reports no trouble # 0 findings",
        "ok 3 the machine was never reset # 0 resets",
        "ok 4 true exits with 0 (new) # exited with 0",
        "# Totals: pass:4 fail:0 xfail:0 xpass:0 skip:0 error:0",
    ]


def test_an_allow_list(run: Run, played: Played, tmp_path: Path) -> None:
    (tmp_path / "allow.toml").write_text('[[allow]]\ntext = "a\\\\.c"\nwhy = "known"\n')
    assert run("try", "--allow", tmp_path / "allow.toml", "--", "true").code == 0
    assert [each.why for each in played.wanted[0].allow] == ["known"]


def test_repeats_have_a_flake_rate(run: Run, played: Played) -> None:
    played.results = [GOOD, BAD, WaitTimeoutError("no room"), GOOD]
    done = run("try", "--repeat", 4, "--", "true")
    assert done.code == 1
    assert "trial 3 of 4: not tested: no room" in done.err
    assert done.err.endswith("1 of 3 trials were bad: a flake rate of 33%, 1 not tested\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--old", "5.4", "--", "true"), "no kernel called '5.4' (there is 6.1"),
        (("--new", "./none", "--", "true"), "cannot read kernel none: No such file"),
        (("--", "./none"), "there is no file none"),
        (("--allow", "none", "--", "true"), "there is no file none"),
        (("--until", "boot", "--in", "new", "--", "true"), "--until boot has no new root"),
        (("--until", "update", "--in", "old", "--", "true"), "leaves no old root"),
        (("--in", "guest", "--", "true"), "--in: 'guest' is none of"),
        (("--keep", "--repeat", "2"), "--keep is for one trial"),
        (("--bogus",), "there is no option --bogus"),
        (("--machine", "none", "--", "true"), "no machine called 'none'"),
    ],
)
def test_what_cannot_be_tested_is_125_and_one_line(run: Run, words: tuple[str, ...], says: str) -> None:
    done = run("try", *words)
    assert done.code == 125
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("error", [MultirootError("no lab"), RuntimeError("a bug"), OSError(28, "No space")])
def test_our_own_fault_is_125_too(run: Run, played: Played, error: Exception) -> None:
    played.results = [error]
    assert run("try", "--", "true").code == 125


def test_others_keep_their_codes(run: Run) -> None:
    """The code of one command is not left over for the next."""
    assert run("try", "--bogus").code == 125
    assert run("demo", "--bogus").code == 2


def test_kselftests_run_in_both_roots_and_a_guest(
    run: Run, played: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Suite("timers", tmp_path, tmp_path, ("nanosleep",))
    asked: list[object] = []

    def build(*words: object) -> list[Suite]:
        asked.extend(words)
        return [made]

    monkeypatch.setattr(kselftest, "trees", lambda kernels, source: (kernels, source))
    monkeypatch.setattr(kselftest, "build", build)
    done = run("try", "--new", "6.1", "--kselftest", "timers:nanosleep", "--kselftest-tree", tmp_path)
    assert done.code == 0, done.err
    assert asked[:2] == [(("6.1", "6.12"), tmp_path), (Wish("timers", ("nanosleep",)),)]
    (wanted,) = played.wanted
    assert (wanted.suites, wanted.places) == ((made,), (Where.OLD, Where.NEW, Where.VM))
    for words, places in (
        (("--in", "vm"), (Where.VM,)),
        (("--until", "boot"), (Where.OLD, Where.VM)),
        (("--until", "update"), (Where.NEW, Where.VM)),
    ):
        assert run("try", "--kselftest", "timers", *words).code == 0
        assert played.wanted[-1].places == places


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kselftest", "timers", "--", "true"), "--kselftest runs in place of CMD"),
        (("--kselftest", "timers", "--in", "workstation"), "kselftests run in the lab"),
        (("--kselftest-tree", "/x"), "--kselftest-tree is for --kselftest"),
        (("--kselftest", "a b"), "no kselftest 'a b'"),
        (("--kselftest", "timers"), "no source tree to build kselftests from"),
        (("--guest", "5.4", "--", "true"), "no kernel called '5.4'"),
    ],
)
def test_what_no_kselftest_can_be(run: Run, played: Played, words: tuple[str, ...], says: str) -> None:
    done = run("try", *words)
    assert (done.code, played.wanted) == (125, [])
    assert says in done.err
    assert done.err.count("\n") == 1
