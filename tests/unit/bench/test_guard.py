# SPDX-License-Identifier: GPL-2.0-or-later
"""Ratios are recorded, read back and compared; a change within the recorded spread is called that."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.bench.results import guard
from multiroot.bench.results.samples import Header, Run, Sample
from multiroot.errors import BadRequestError

HEADER = Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {}, 0.1, 1, {})
OURS = "multi-root / in-place, blackout"


def run(ours: float) -> Run:
    return Run(
        HEADER,
        (
            Sample("multi-root", 0, {"blackout_ns": ours}),
            Sample("multi-root", 1, {"blackout_ns": ours * 1.2}),
            Sample("in-place", 0, {"blackout_ns": 100.0}),
        ),
    )


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ratios.json"
    monkeypatch.setattr(guard, "FILE", path)
    return path


def test_recorded_and_compared() -> None:
    first = guard.ratios(run(100))
    assert first.keys() == {OURS}
    assert guard.recorded() == {}
    assert guard.change_table({}, first)[1] == [(OURS, "-", "1.10", "not recorded yet")]
    guard.record(run(100), first)
    assert guard.recorded()[OURS]["value"] == 1.1
    assert guard.change_table(guard.recorded(), first)[1][0][3] == "+0% (in its spread)"
    assert guard.change_table(guard.recorded(), guard.ratios(run(200)))[1][0][1:] == ("1.10", "2.20", "+100%")


def test_a_file_that_is_something_else(file: Path) -> None:
    file.write_text("[]")
    with pytest.raises(BadRequestError, match="no ratios"):
        guard.recorded()
