# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a run a table, a plot or a report shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """`metric` decides: its ratios to `base` are shown, and its noise. `metrics` have a row each in the
    summary, `also` get ratios and a plot of their own. `ours` is the contender whose blackout is taken apart;
    `owners` are those whose blackouts are, side by side.
    """

    metric: str
    base: str
    ours: str
    metrics: tuple[str, ...]
    also: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[str, ...]:
        """Every metric of which ratios are shown."""
        return (self.metric, *self.also)
