# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m multiroot.bench.document [SAMPLES]`: writes the table of all contenders in docs/performance.md.

SAMPLES is the samples.jsonl of a `bench handoff`. docs/contenders.jsonl keeps what the table needs of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from multiroot import markdown
from multiroot.bench import names
from multiroot.bench.results import render, samples
from multiroot.bench.results.samples import Recorder, Run
from multiroot.bench.results.summary import noise, ratio, summarise
from multiroot.errors import BadRequestError
from multiroot.lab import paths

BEGIN = "<!-- from docs/contenders.jsonl by `python -m multiroot.bench.document` -->"
END = "<!-- end -->"
BLACKOUT, GAP, TOTAL, SENT = "blackout_ns", "blackout_gap_ns", "total_ns", "sent_bytes"
# What the guest lost or said wrong, which no sample should have.
_FAULTS = ("missing_ticks", "bad_bytes")
_KEPT = (BLACKOUT, GAP, TOTAL, SENT, *_FAULTS)
_COLUMNS = (
    "",
    "n",
    "blackout, ms",
    f"times {names.OURS}'s, middle half of pairs",
    "the guest's gap, ms",
    "in all, s",
    "sent",
)


def page() -> Path:
    return paths.source_dir() / "docs/performance.md"


def data() -> Path:
    return paths.source_dir() / "docs/contenders.jsonl"


def kept(run: Run) -> Run:
    """What the table needs: contenders of `bench handoff`, and of their samples no phases."""
    chosen = [each for each in run.samples if each.contender in names.HANDOFF]
    return replace(run, samples=tuple(
        replace(each, phases=(), values={name: each.values[name] for name in _KEPT if name in each.values})
        for each in chosen
    ))  # fmt: skip


def write(run: Run, path: Path) -> None:
    with closing(Recorder(path)) as recorder:
        recorder.header(run.header)
        for sample in run.samples:
            recorder.sample(sample)
        for name, why in run.skipped.items():
            recorder.skipped(name, why)


def table(run: Run) -> str:
    """The run in words, and a row for each contender, the shortest blackout first."""
    there = [name for name in names.HANDOFF if run.values(name, BLACKOUT)]
    if names.OURS not in there:
        raise BadRequestError(f"the run has no samples of {names.OURS}")
    there.sort(key=lambda name: summarise(run.values(name, BLACKOUT)).median)
    lines = [markdown.row(*_COLUMNS), "|---|---:|---:|---|---:|---:|---:|"]
    return "\n".join([_about(run), "", *lines, *(_row(run, name) for name in there)])


def updated(text: str, run: Run) -> str:
    """`text` with what stands between the marks made anew; raises BadRequestError if it has none."""
    before, after = markdown.around(text, page(), BEGIN, END)
    return f"{before}{BEGIN}\n\n{table(run)}\n\n{END}{after}"


def _about(run: Run) -> str:
    header = run.header
    faults = [each for each in run.samples if any(each.values.get(name) for name in _FAULTS)]
    failed = [each for each in run.samples if each.failed]
    found = [
        f"Begun {header.started}, revision {header.revision}, kernel {header.versions['old_kernel']}, guests'"
        f" QEMU {header.versions['guest_qemu']}, load {header.load} before the run.",
        f"Samples with a tick that was missing or a byte that was wrong: {len(faults)}.",
        f"Failed: {len(failed)}.",
        *(f"Left out: {name}: {why}." for name, why in run.skipped.items()),
        *(f"Flagged noisy: {each}." for each in noise(run, BLACKOUT)),
    ]
    return " ".join(found)


def _row(run: Run, name: str) -> str:
    blackouts = run.values(name, BLACKOUT)
    found = summarise(blackouts)
    ours = run.values(names.OURS, BLACKOUT)
    beside = "" if name == names.OURS else _times(blackouts, ours)
    gap, total, sent = (run.values(name, metric) for metric in (GAP, TOTAL, SENT))
    return markdown.row(
        name,
        str(found.n),
        f"{_ms(found.median)} ({_ms(found.min)} to {_ms(found.max)})",
        beside,
        _ms(summarise(gap).median) if gap else "",
        f"{summarise(total).median / 1e9:.1f}" if total else "",
        f"{render.figure(SENT, summarise(sent).median / 1e3)} kB" if sent else "",
    )


def _times(blackouts: Sequence[float], ours: Sequence[float]) -> str:
    found = ratio(blackouts, ours)
    return f"{_factor(found.value)} ({_factor(found.low)} to {_factor(found.high)})"


def _factor(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.1f}" if ns < 1e9 else f"{ns / 1e6:.0f}"


def main(arguments: Sequence[str]) -> None:
    if arguments:
        write(kept(samples.read(Path(arguments[0]))), data())
    path = page()
    path.write_text(updated(path.read_text(encoding="utf-8"), samples.read(data())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
