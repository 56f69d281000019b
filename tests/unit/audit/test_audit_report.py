# SPDX-License-Identifier: GPL-2.0-or-later
"""What `multiroot lab audit` prints and exits with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from multiroot.audit import rows, run
from multiroot.audit.audit_report import Audit
from multiroot.audit.judge import Seen, Violation
from multiroot.audit.rows import Phase, Role
from multiroot.cli.lab import lab
from multiroot.verdict.points import point

GOOD = Audit(
    rows=rows.load(),
    seen=(Seen("pit", Phase.LAUNCH, "new", 110, 3), Seen("pit", Phase.BOTH, "new", 1, 0)),
    violations=(),
    claims=(point("the guest moved", True, "once"),),
    accesses=114,
    trace_bytes=10_000,
    msr_writes={Role.OLD: 5, Role.NEW: 7},
    rings=4,
)
LOST = (point("the guest moved", True, "once"), point("no tick was lost", False, "3 missing"))
BAD = replace(GOOD, violations=(Violation("pit", Phase.BOTH, "new", "wrote port 0x40 (pit)", 2, 0x34),))


@pytest.fixture
def found(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setattr(run, "run", lambda options, phases, retire: request.param)
    given: Audit = request.param
    return given


@pytest.mark.parametrize("found", [GOOD], indirect=True)
def test_a_run_in_which_everything_held(found: Audit) -> None:
    done = CliRunner().invoke(lab, ["audit"])
    assert done.exit_code == 0
    assert "every row held" in done.output
    assert "114 accesses (0.0 MB of trace) and 12 MSR writes judged; 4 doorbells" in done.output


@pytest.mark.parametrize("found", [BAD], indirect=True)
def test_a_violation_is_named_and_changes_the_exit_code(found: Audit) -> None:
    done = CliRunner().invoke(lab, ["audit"])
    assert done.exit_code == 1
    assert "pit, phase both: new wrote port 0x40 (pit) (first value 0x34, 2 times)" in done.output


@pytest.mark.parametrize("found", [replace(GOOD, claims=LOST)], indirect=True)
def test_a_demo_that_failed_is_no_audit_that_held(found: Audit) -> None:
    done = CliRunner().invoke(lab, ["audit"])
    assert done.exit_code == 1
    assert "no tick was lost" in done.output


@pytest.mark.parametrize("found", [BAD], indirect=True)
def test_json_has_every_row_with_what_was_seen(found: Audit) -> None:
    done = CliRunner().invoke(lab, ["audit", "--json"])
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    by_id = {row["id"]: row for row in data["rows"]}
    assert [row["id"] for row in data["rows"]] == [row.id for row in found.rows.row]
    assert by_id["pit"]["seen"][0] == {"phase": "launch", "who": "new", "reads": 110, "writes": 3}
    assert not by_id["pit"]["held"]
    assert by_id["pit"]["violations"][0]["what"] == "wrote port 0x40 (pit)"
    assert by_id["hpet"]["held"]
    assert not data["held"]


def test_counts_are_summed_over_phases() -> None:
    pit = GOOD.rows.by_id("pit")
    assert GOOD.counts(pit, "new") == (111, 3)
    assert GOOD.counts(pit, "new", [Phase.BOTH]) == (1, 0)
    assert GOOD.counts(pit, "old") == (0, 0)


def test_a_dry_run_prints_the_rows_and_runs_nothing() -> None:
    done = CliRunner().invoke(lab, ["audit", "--dry-run"])
    assert done.exit_code == 0
    assert "PIT (8254)" in done.output


@pytest.mark.parametrize("found", [replace(BAD, claims=LOST)], indirect=True)
def test_every_row_is_a_test_point(found: Audit) -> None:
    done = CliRunner().invoke(lab, ["audit", "--ktap"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[1] == f"1..{len(found.rows.row) + 2}"
    bad = [line for line in lines if line.startswith("not ok")]
    assert len(bad) == 2
    assert bad[0].partition(" ")[2].split()[2] == "pit"
    assert f"ok {len(found.rows.row) + 1} the guest moved # once" in lines
    assert f"not ok {len(found.rows.row) + 2} no tick was lost # 3 missing" in lines
