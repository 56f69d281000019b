# SPDX-License-Identifier: GPL-2.0-or-later
"""A report is one file that needs no other, and says what went wrong."""

from __future__ import annotations

from pathlib import Path

from multiroot.bench.results import html_report
from multiroot.bench.results.samples import Header, Run, Sample
from multiroot.bench.results.view import View
from multiroot.phases import Phase

HEADER = Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {}, 0.1, 1, {})
PHASES = (
    Phase("save device state", "root 1", 0, 10_000_000, blackout=True),
    Phase("load device state", "root 2", 12_000_000, 30_000_000, blackout=True),
)
VIEW = View("blackout_ns", "in-place", "multi-root", ("blackout_ns",))


def test_a_page_of_its_own(tmp_path: Path) -> None:
    samples = (
        Sample("multi-root", 0, {"blackout_ns": 6e7}, PHASES),
        Sample("in-place", 0, {"blackout_ns": 5e7}),
        Sample("pre-copy", 0, failed="<no end>"),
    )
    run = Run(HEADER, samples, {"cpr": "not in this QEMU"})
    page = html_report.write(run, VIEW, tmp_path)
    text = page.read_text()
    assert "&lt;no end&gt;" in text
    assert "not in this QEMU" in text
    assert text.count("<svg") == 2
    assert "src=" not in text.replace("xlink", "")
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"contenders.png", "contenders.svg", "blackout.png", "blackout.svg", "trace.json"}


def test_nothing_measured_is_still_a_page(tmp_path: Path) -> None:
    page = html_report.write(Run(HEADER, ()), VIEW, tmp_path)
    assert "multiroot bench handoff" in page.read_text()
