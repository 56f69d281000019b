# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of all contenders is made from the samples that are kept beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.bench import document
from multiroot.bench.names import IN_PLACE, KEXEC, OURS
from multiroot.bench.results import samples
from multiroot.bench.results.samples import Header, Run, Sample
from multiroot.errors import BadRequestError
from multiroot.phases import Phase

HEADER = Header("handoff", "2026-01-01T00:00:00+00:00", "abc", {"cpus": 2},
                {"old_kernel": "6.12", "guest_qemu": "11.1"}, 0.5, 1, {})  # fmt: skip


def sample(contender: str, blackout_ms: float, **more: float) -> Sample:
    values = {"blackout_ns": blackout_ms * 1e6, "blackout_gap_ns": blackout_ms * 2e6, "odd_ns": 1.0, **more}
    return Sample(contender, 0, values, (Phase("save", "root 1", 0, 1),))


RUN = Run(
    HEADER,
    (
        *(sample(OURS, each, total_ns=1e9, sent_bytes=72_000) for each in (20.0, 30.0, 40.0)),
        *(sample(IN_PLACE, each) for each in (15.0, 15.0, 15.0)),
        sample(KEXEC, 30_000, missing_ticks=2),
        sample("multi-root (traced)", 50),
        Sample("multifd", 1, failed="it did not come to an end"),
    ),
    {"cpr-exec": "QEMU 7 has none"},
)


PAGE = f"{document.BEGIN}{document.END}"


def test_the_shortest_blackout_comes_first_and_each_is_beside_ours() -> None:
    *_, kexec, end = [f"{line}" for line in document.updated(PAGE, document.kept(RUN)).splitlines() if line]
    assert kexec == "| kexec-pmem | 1 | 30000 (30000 to 30000) | 1000 (875 to 1250) | 60000 |  |  |"
    assert end == document.END
    rows = document.table(document.kept(RUN)).splitlines()[4:]
    assert rows[0] == "| in-place | 3 | 15.0 (15.0 to 15.0) | 0.50 (0.38 to 0.75) | 30.0 |  |  |"
    assert rows[1] == "| multi-root | 3 | 30.0 (20.0 to 40.0) |  | 60.0 | 1.0 | 72 kB |"
    assert len(rows) == 3


def test_what_went_wrong_is_told() -> None:
    words = document.table(document.kept(RUN)).splitlines()[0]
    assert "a byte that was wrong: 1. Failed: 1." in words
    assert "Left out: cpr-exec: QEMU 7 has none." in words
    assert "Flagged noisy: kexec-pmem: 1 samples are few." in words


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    kept = document.kept(RUN)
    document.write(kept, tmp_path / "kept.jsonl")
    assert samples.read(tmp_path / "kept.jsonl") == kept
    assert document.kept(kept) == kept
    assert "odd_ns" not in kept.metrics()


def test_a_run_without_ours_has_no_such_table() -> None:
    with pytest.raises(BadRequestError, match="no samples of multi-root"):
        document.table(Run(HEADER, (sample(IN_PLACE, 1),)))


def test_the_page_has_the_table_of_its_data() -> None:
    text = document.page().read_text(encoding="utf-8")
    assert document.updated(text, samples.read(document.data())) == text
