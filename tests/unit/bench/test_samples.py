# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured is read back as it was written, also after a run cut short."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.results.samples import Header, Recorder, Run, Sample, read
from multiroot.errors import BadRequestError
from multiroot.phases import Phase

HEADER = Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {"qemu": "10"}, 0.5, 7, {"rounds": 3})
PHASES = st.builds(
    Phase,
    name=st.text(),
    side=st.text(),
    start_ns=st.integers(),
    duration_ns=st.none() | st.integers(0),
    blackout=st.booleans(),
    attrs=st.dictionaries(st.text(), st.text() | st.integers()),
)
SAMPLES = st.builds(
    Sample,
    contender=st.text(min_size=1),
    round=st.integers(0, 99),
    values=st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False)),
    phases=st.lists(PHASES, max_size=3).map(tuple),
    failed=st.text(),
)


@given(st.lists(SAMPLES, max_size=5), st.dictionaries(st.text(min_size=1), st.text(), max_size=2))
def test_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample], skipped: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("run") / "samples.jsonl"
    recorder = Recorder(path)
    recorder.header(HEADER)
    for sample in samples:
        recorder.sample(sample)
    for contender, why in skipped.items():
        recorder.skipped(contender, why)
    # Not closed: a run that is killed must leave as much.
    assert read(path) == Run(HEADER, tuple(samples), skipped)
    recorder.close()


def test_a_run_that_is_refused_leaves_no_file_and_keeps_an_earlier_one(tmp_path: Path) -> None:
    Recorder(tmp_path / "new/samples.jsonl").close()
    assert not list(tmp_path.iterdir())
    path = tmp_path / "samples.jsonl"
    path.write_text("of an earlier run")
    Recorder(path).close()
    assert path.read_text() == "of an earlier run"


def test_values_by_contender_and_metric() -> None:
    run = Run(HEADER, (Sample("a", 0, {"x": 1}), Sample("b", 0, {"x": 5}), Sample("a", 1, {"x": 2, "y": 3})))
    assert run.values("a", "x") == [1, 2]
    assert run.values("b", "y") == []
    assert (run.contenders(), run.metrics()) == (["a", "b"], ["x", "y"])


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"kind": "run", "format": 99}', '{"kind": "sample"}'])
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(text)
    with pytest.raises(BadRequestError, match="does not hold"):
        read(path)
    with pytest.raises(BadRequestError, match="no file"):
        read(tmp_path / "other")
