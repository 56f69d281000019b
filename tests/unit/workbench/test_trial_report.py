# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows from what a trial saw: its points, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.verdict.findings import Finding, Source, find
from multiroot.verdict.points import Outcome
from multiroot.verdict.signs import Kind
from multiroot.workbench.look import Answer, Facts, Identity, Image, Scan, parse_facts
from multiroot.workbench.trial_report import BAD, GOOD, UNTESTED, Command, Repeated, Step, Trial

IMAGE = Image("6.12", "6.12.1", "ab" * 32, "cd" * 20)
WARNED = find(["[ 5.000000] WARNING: CPU: 0 PID: 1 at a.c:1 b+0x1/0x2"], "new", "6.12.1")


def trial(code: int | None = 0, **more: object) -> Trial:
    made = Trial(
        planned=("boots", "comes up"),
        steps=[Step("boots", True), Step("comes up", True, "in 3 s")],
        command=Command(("./test.sh", "-v"), "new", code),
        identities=[Identity("old", IMAGE, IMAGE, "the old root")],
        listened=["old", "new"],
    )
    return replace(made, **more)  # type: ignore[arg-type]


def outcomes(of: Trial) -> dict[str, Outcome]:
    return {each.claim: each.outcome for each in of.points()}


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (0, GOOD),
        (1, 1),
        (3, 3),
        (4, 4),
        (124, 124),
        (125, UNTESTED),
        (126, UNTESTED),
        (127, UNTESTED),
        (139, BAD),
    ],
)
def test_the_commands_exit_code_is_ours(code: int, exit_code: int) -> None:
    assert trial(code).code() == exit_code


def test_a_finding_makes_it_bad_whatever_the_command_says() -> None:
    assert trial(0, findings=WARNED).code() == BAD
    assert trial(3, findings=WARNED).code() == 3
    assert trial(125, findings=WARNED).code() == BAD
    assert trial(137, findings=WARNED).code() == BAD
    claims = outcomes(trial(0, findings=WARNED))
    assert claims["the new root's kernel reports no trouble"] is Outcome.FAILED
    assert claims["the old root's kernel reports no trouble"] is Outcome.HELD


def test_an_allowed_finding_does_not() -> None:
    known = [replace(each, allowed="known since 6.10") for each in WARNED]
    good = trial(0, findings=known)
    assert (good.code(), good.counted) == (GOOD, [])
    assert "0 findings, 1 allowed" in [each.seen for each in good.points()]


def test_a_step_that_did_not_hold_ends_it() -> None:
    bad = trial(None, steps=[Step("boots", False, "panicked")])
    assert (bad.code(), bad.held) == (BAD, False)
    assert outcomes(bad)["comes up"] is Outcome.SKIPPED
    assert outcomes(bad)["./test.sh -v exits with 0 (new)"] is Outcome.SKIPPED


def test_another_kernel_than_asked_for_is_bad() -> None:
    for other in (replace(IMAGE, sha256="00" * 32), replace(IMAGE, build_id="00" * 20)):
        wrong = trial(0, identities=[Identity("old", IMAGE, other, "the old root")])
        assert wrong.code() == BAD
        (told,) = [each.seen for each in wrong.points() if "asked for" in each.claim]
        assert told.startswith("asked for 6.12.1")
    without = Identity("old", replace(IMAGE, build_id=""), IMAGE, "the old root")
    assert trial(0, identities=[without]).code() == GOOD


def test_a_skip_is_4_as_in_kselftest() -> None:
    assert outcomes(trial(4))["./test.sh -v exits with 0 (new)"] is Outcome.SKIPPED


def answer(called: str, source: Source, why_none: str = "") -> Answer:
    return Answer(called, source, Facts(source.release, 0, {}, ""), Scan(why_none=why_none))


def test_leaks_are_told_of_the_kernel_that_has_them() -> None:
    """After an update a kernel speaks where another did before."""
    asked = [
        answer("the old root", Source("old", "6.1"), "it is off"),
        answer("the new root", Source("new", "6.12")),
        answer("the root after the update", Source("new", "6.12", 2)),
    ]
    leak = Finding(Kind.KMEMLEAK, "unreferenced object", Source("new", "", 2))
    seen = trial(0, findings=[leak], answers={each.called: each for each in asked})
    claims = outcomes(seen)
    assert claims["kmemleak finds nothing in the old root"] is Outcome.SKIPPED
    assert claims["kmemleak finds nothing in the new root"] is Outcome.HELD
    assert claims["kmemleak finds nothing in the root after the update"] is Outcome.FAILED
    assert "6.12: 1 leaks" in [each.seen for each in seen.points()]


def test_ticks_and_resets() -> None:
    claims = outcomes(trial(0, ticks=9, ticks_lost=0))
    assert claims["the guest lost and repeated no tick"] is Outcome.HELD
    assert trial(0, ticks_lost=2).code() == BAD
    assert trial(0, resets=1).code() == BAD


def test_what_could_not_be_tested_is_not_bad() -> None:
    assert Trial((), untested="no kernel called x").code() == UNTESTED


@given(st.integers(0, 255), st.booleans(), st.booleans())
def test_no_code_of_a_signal_is_ours(code: int, found: bool, held: bool) -> None:
    seen = trial(code, findings=WARNED if found else [], steps=[Step("boots", held)])
    assert 0 <= seen.code() <= UNTESTED
    assert (seen.code() == GOOD) == (code == 0 and held and not found)


def test_a_report_is_data() -> None:
    data = json.loads(json.dumps(trial(1, findings=WARNED).to_json()))
    assert (data["code"], data["held"]) == (1, False)
    assert data["kernels"][0]["same"] is True
    assert data["findings"][0]["kind"] == "warning"


def test_repeats_tell_how_often_it_is_bad() -> None:
    seen = Repeated([trial(0), trial(3), trial(125), trial(0, findings=WARNED)])
    assert (seen.bad, seen.tested, seen.code()) == (2, 3, 3)
    assert seen.flake_rate == pytest.approx(2 / 3)
    assert seen.points()[0].claim == "trial 1: boots"
    assert seen.to_json()["flake_rate"] == seen.flake_rate
    assert Repeated([trial(125)]).code() == UNTESTED
    assert Repeated([trial(125), trial(0)]).code() == GOOD


def test_what_a_root_says_of_its_kernel() -> None:
    notes = "040000001400000003000000474e5500" + "ab" * 20
    text = f"release 6.12.1\ntainted 12288\nmodule multiroot/taint OE\nmodule frob/taint O\nnotes {notes}\n"
    assert parse_facts(text) == Facts("6.12.1", 12288, {"multiroot": "OE", "frob": "O"}, "ab" * 20)
    with pytest.raises(Exception, match="says nothing of its kernel"):
        parse_facts("sh: not found\n")
