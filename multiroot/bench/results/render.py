# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as tables and as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from multiroot.bench.results import trace
from multiroot.bench.results.kexec_phases import Row
from multiroot.bench.results.samples import Run
from multiroot.bench.results.summary import Ratio, noise, ratio, summarise
from multiroot.bench.results.view import View

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

# What the end of a metric's name says of its unit, and the unit it is shown in.
_UNITS = {
    "_ns": "ms",
    "_us": "\u00b5s",
    "_bytes": "bytes",
    "_mib": "MiB",
    "_mb_per_s": "MB/s",
    "_ns_per_kb": "ns per kB",
}


def ratios(run: Run, metric: str, base: str) -> dict[str, Ratio]:
    """How many times `base`'s median, with the same kind of VM, each other contender's is."""
    found = {}
    for contender in run.contenders():
        own_base = run.beside(contender, base)
        values, floor = run.values(contender, metric), run.values(own_base, metric)
        if contender != own_base and values and floor and min(floor) > 0:
            found[contender] = ratio(values, floor)
    return found


def to_json(run: Run, view: View) -> dict[str, Any]:
    """Summaries of all metrics, the ratios that `view` compares, and warnings.

    Raw samples are in the run's file.
    """

    def ratios_of(each: str) -> dict[str, Any]:
        of = {name: asdict(found) for name, found in ratios(run, each, view.base).items()}
        return {"metric": each, "to": view.base, "of": of}

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
        "ratios": ratios_of(view.metric),
        "more_ratios": [ratios_of(each) for each in view.also],
        "failed": [asdict(sample) for sample in run.samples if sample.failed],
        "skipped": run.skipped,
        "noise": noise(run, view.metric),
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


def kexec_table(rows: Sequence[Row]) -> Table:
    """The ten phases of kexec + PMEM beside ours, in ms."""

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value / 1e6:.1f}"

    body: list[tuple[str, ...]] = [(r.phase, ms(r.theirs), ms(r.ours), r.where) for r in rows]
    return ("phase", "kexec + PMEM, ms >", "multi-root, ms >", "ours lies"), body


def owners_table(run: Run, contenders: Sequence[str]) -> Table:
    """Who owns the blackout of each of these that has samples, in ms; no rows if none has."""
    shares: dict[str, dict[str, float]] = {}
    for name in contenders:
        samples = [each.phases for each in run.samples if each.contender == name and each.phases]
        if samples:
            shares[name] = trace.owners(samples)
    most = {owner: max(share.get(owner, 0.0) for share in shares.values())
            for share in shares.values() for owner in share}  # fmt: skip
    body: list[tuple[str, ...]] = [
        (owner, *(f"{share.get(owner, 0.0) / 1e6:.2f}" for share in shares.values()))
        for owner in sorted(most, key=lambda owner: -most[owner])
    ]
    return ("part of the blackout, median", *(f"{name}, ms >" for name in shares)), body


def clocks(run: Run) -> str:
    """How far the roots' clocks were apart, the worst of all boots, in words; "" if nobody looked."""
    seen = [s.values for s in run.samples if "apart_us" in s.values]
    if not seen:
        return ""
    worst = max(seen, key=lambda values: abs(values["apart_us"]))
    return (
        f"the TSC clocks of both roots were seen {worst['apart_us']:+.0f} \u00b5s apart, "
        f"by exchanges that can't tell better than {worst['bound_us']:.0f} \u00b5s"
    )


def title(metric: str) -> str:
    """The metric as a heading, with the unit it is shown in."""
    name, unit, _ = _split(metric)
    words = name.replace("_", " ")
    return f"{words}, {unit}" if unit else words


def shown(metric: str, value: float) -> float:
    """The number in the unit that `title` names."""
    return value / _split(metric)[2]


def figure(metric: str, value: float) -> str:
    """The number as shown."""
    number = shown(metric, value)
    if metric.endswith("_ns"):
        return f"{number:.1f}"
    return f"{number:.0f}" if number > 100 else f"{number:.3g}"


def _split(metric: str) -> tuple[str, str, float]:
    """A metric's name, the unit it is shown in, and how many of its own unit make one of that."""
    for suffix, unit in _UNITS.items():
        if metric.endswith(suffix):
            return metric.removesuffix(suffix), unit, 1e6 if suffix == "_ns" else 1.0
    return metric, "", 1.0
