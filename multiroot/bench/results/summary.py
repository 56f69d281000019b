# SPDX-License-Identifier: GPL-2.0-or-later
"""What samples say: summaries, ratios with their spread, and whether a run was too noisy to say it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from multiroot.bench.results.samples import Run

# Half of the samples further apart than this share of their median, and one run does not tell much.
NOISY_SPREAD = 0.3
# Host load per CPU before the run above which something else was at work.
NOISY_LOAD = 0.5


@dataclass(frozen=True)
class Summary:
    """Of one metric of one contender, in the metric's unit; `low` and `high` are the quartiles."""

    n: int
    median: float
    p95: float
    min: float
    max: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Distance between the quartiles as a share of the median; 0 for a median of 0."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Ratio:
    """How many times one contender's median is another's; `low` and `high` enclose the middle half of what
    pairs of single samples give."""

    value: float
    low: float
    high: float


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the samples lie, between neighbours in proportion.

    Raises ValueError without samples.
    """
    if not values:
        raise ValueError("no samples")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    part = place - below
    # Not a + (b - a) * part: that may leave [a, b] by a rounding error.
    return ordered[below] if ordered[below] == ordered[above] else (
        ordered[below] * (1 - part) + ordered[above] * part
    )  # fmt: skip


def summarise(values: Sequence[float]) -> Summary:
    """Raises ValueError without samples."""
    return Summary(
        n=len(values),
        median=quantile(values, 0.5),
        p95=quantile(values, 0.95),
        min=min(values),
        max=max(values),
        low=quantile(values, 0.25),
        high=quantile(values, 0.75),
    )


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Of medians; raises ValueError without samples or when a denominator is not positive."""
    if any(value <= 0 for value in denominator):
        raise ValueError("a denominator that is not positive")
    pairs = [above / below for above, below in product(numerator, denominator)]
    value = quantile(numerator, 0.5) / quantile(denominator, 0.5)
    return Ratio(value, quantile(pairs, 0.25), quantile(pairs, 0.75))


def noise(run: Run, metric: str) -> list[str]:
    """Why this run is flagged noisy, as far as `metric` is concerned; empty when it is not."""
    warnings = []
    cpus = int(run.header.host.get("cpus", 1))
    if run.header.load > NOISY_LOAD * cpus:
        warnings.append(f"the host was busy before the run: load {run.header.load:.1f} on {cpus} CPUs")
    for contender in run.contenders():
        values = run.values(contender, metric)
        if len(values) < 3:
            if values:
                warnings.append(f"{contender}: {len(values)} samples are few")
            continue
        found = summarise(values)
        if found.spread > NOISY_SPREAD:
            warnings.append(f"{contender}: half of {found.n} samples are {found.spread:.0%} apart")
    return warnings
