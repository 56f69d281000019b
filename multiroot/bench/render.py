# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as tables and as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from multiroot.bench.samples import Run
from multiroot.bench.seed import Row
from multiroot.bench.summary import Ratio, noise, ratio, summarise

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def ratios(run: Run, metric: str, base: str) -> dict[str, Ratio]:
    """How many times `base`'s median each other contender's is."""
    floor = run.values(base, metric)
    found = {}
    for contender in run.contenders():
        values = run.values(contender, metric)
        if contender != base and values and floor and min(floor) > 0:
            found[contender] = ratio(values, floor)
    return found


def to_json(run: Run, metric: str, base: str) -> dict[str, Any]:
    """Summaries of all metrics, ratios of one, warnings; raw samples are in the run's file."""
    return {
        "bench": run.header.bench,
        "header": asdict(run.header),
        "summary": {
            contender: {
                each: asdict(summarise(values))
                for each in run.metrics()
                if (values := run.values(contender, each))
            }
            for contender in run.contenders()
        },
        "ratios": {
            "metric": metric,
            "to": base,
            "of": {name: asdict(found) for name, found in ratios(run, metric, base).items()},
        },
        "failed": [asdict(sample) for sample in run.samples if sample.failed],
        "skipped": run.skipped,
        "noise": noise(run, metric),
    }


def summary_table(run: Run, metrics: tuple[str, ...]) -> Table:
    """A row for each contender and metric."""
    rows = []
    for contender in run.contenders():
        for metric in metrics:
            values = run.values(contender, metric)
            if not values:
                continue
            found = summarise(values)
            numbers = (found.median, found.p95, found.min, found.max)
            rows.append(
                (contender, title(metric), *(figure(metric, number) for number in numbers), str(found.n))
            )
    return ("contender", "metric", "median >", "p95 >", "min >", "max >", "n >"), rows


def ratio_table(run: Run, metric: str, base: str) -> Table:
    """A row for each contender but `base`."""
    rows: list[tuple[str, ...]] = [
        (name, f"{found.value:.2f}", f"{found.low:.2f} - {found.high:.2f}")
        for name, found in ratios(run, metric, base).items()
    ]
    return ("contender", f"times {base} >", "middle half of pairs >"), rows


def seed_table(rows: Sequence[Row]) -> Table:
    """The seed's table with ours beside it, in ms."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value / 1e6:.1f}"

    body: list[tuple[str, ...]] = [(r.phase, shown(r.theirs), shown(r.ours), r.where) for r in rows]
    return ("phase", "kexec + PMEM, ms >", "multi-root, ms >", "ours lies"), body


def title(metric: str) -> str:
    """The metric as a heading, with the unit it is shown in."""
    words = metric.removesuffix("_ns").removesuffix("_bytes").replace("_", " ")
    unit = "ms" if metric.endswith("_ns") else "bytes" if metric.endswith("_bytes") else ""
    return f"{words}, {unit}" if unit else words


def figure(metric: str, value: float) -> str:
    """The number as shown: times in ms."""
    return (
        f"{value / 1e6:.1f}" if metric.endswith("_ns") else f"{value:.0f}" if value > 100 else f"{value:.3g}"
    )
