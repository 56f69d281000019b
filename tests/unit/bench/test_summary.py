# SPDX-License-Identifier: GPL-2.0-or-later
"""Summaries and ratios say nothing that the samples do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.results import summary
from multiroot.bench.results.samples import Header, Run, Sample

VALUES = st.lists(st.floats(min_value=1e-3, max_value=1e9), min_size=1, max_size=20)
HEADER = Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {}, 0.1, 1, {})


def run(load: float = 0.1, **samples: list[float]) -> Run:
    return Run(
        replace(HEADER, load=load),
        tuple(Sample(name, 0, {"x_ns": value}) for name, values in samples.items() for value in values),
    )


@given(VALUES)
def test_a_summary_lies_between_its_extremes(values: list[float]) -> None:
    found = summary.summarise(values)
    assert found.n == len(values)
    assert found.min <= found.low <= found.median <= found.high <= found.max
    assert found.median <= found.p95 <= found.max


@given(VALUES, st.randoms())
def test_order_does_not_matter(values: list[float], random: object) -> None:
    shuffled = sorted(values, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert summary.summarise(shuffled) == summary.summarise(values)


def test_known_quantiles() -> None:
    found = summary.summarise([1, 2, 3, 4, 100])
    assert (found.median, found.low, found.high, found.max) == (3, 2, 4, 100)
    assert found.p95 == pytest.approx(80.8)
    assert summary.quantile([1, 2], 0.5) == 1.5
    with pytest.raises(ValueError, match="no samples"):
        summary.summarise([])


@given(VALUES, st.floats(min_value=0.1, max_value=100))
def test_a_ratio_scales_with_its_numerator(values: list[float], factor: float) -> None:
    found = summary.ratio([value * factor for value in values], values)
    assert found.value == pytest.approx(factor)
    assert found.low <= found.high


def test_a_ratio_has_the_spread_of_its_samples() -> None:
    steady = summary.ratio([2.0, 2.0, 2.0], [1.0, 1.0])
    assert (steady.value, steady.low, steady.high) == (2, 2, 2)
    shaky = summary.ratio([1.0, 2.0, 9.0], [1.0, 1.0])
    assert shaky.low < shaky.value < shaky.high
    with pytest.raises(ValueError, match="denominator"):
        summary.ratio([1.0], [0.0])


def test_noise_is_noticed() -> None:
    assert summary.noise(run(ours=[10, 10.1, 10.2, 10.3]), "x_ns") == []
    assert "busy" in summary.noise(run(load=1.5, ours=[10, 10, 10]), "x_ns")[0]
    assert "ours" in summary.noise(run(ours=[10, 20, 30, 40]), "x_ns")[0]
    assert "few" in summary.noise(run(ours=[10, 20]), "x_ns")[0]
