# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots of a run: PNG and SVG of each. The only place that needs matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from multiroot.bench.results import module_events, render
from multiroot.bench.results.kexec_phases import Row
from multiroot.bench.results.samples import Run, Sample
from multiroot.bench.results.summary import quantile
from multiroot.bench.results.trace import blackout_parts
from multiroot.errors import MultirootError

if importlib.util.find_spec("matplotlib") is None:
    raise MultirootError("plots need matplotlib", "pip install 'multiroot[bench]', or `make setup`")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

WIDTH = 9.0  # inches
INK, DOT, BAR = "#222222", "#4477aa", "#cc6677"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222255", "#999933")


def contenders(run: Run, metric: str) -> Figure:
    """Every sample of every contender on a logarithmic scale, the median as a bar."""
    found = {name: values for name in run.contenders() if (values := run.values(name, metric))}
    ordered = sorted(found, key=lambda name: quantile(found[name], 0.5), reverse=True)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.45 * max(len(ordered), 1)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(ordered):
        values = [render.shown(metric, value) for value in found[name]]
        axes.plot(values, [row] * len(values), "o", color=DOT, alpha=0.6, markersize=6)
        middle = quantile(values, 0.5)
        axes.plot([middle, middle], [row - 0.3, row + 0.3], color=BAR, linewidth=2.5)
        label = f"{middle:.0f}" if middle >= 10 else f"{middle:.1f}"
        axes.annotate(label, (middle, row + 0.32), color=INK, ha="center", va="bottom", fontsize=8)
    _logarithmic(axes)
    axes.set_yticks(range(len(ordered)), ordered)
    axes.set_ylim(-0.6, len(ordered) - 0.2)
    axes.set_xlabel(f"{render.title(metric)} (logarithmic); dots: samples, bar: median")
    _plain(axes)
    return figure


def blackout(sample: Sample) -> Figure:
    """One blackout, each part with its owner, and below them what the modules saw of it."""
    parts = blackout_parts(sample.phases)
    seen = [phase for phase in sample.phases if phase.side.startswith(module_events.MODULE)]
    kinds = sorted({(mark.side, mark.name) for mark in seen})
    rows = len(parts) + len(kinds)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * max(rows, 1)), layout="constrained")
    axes = figure.subplots()
    first = parts[0].start_ns if parts else 0
    whole = (parts[-1].end_ns - first) / 1e6 if parts else 1.0
    for row, part in enumerate(parts):
        start, length = (part.start_ns - first) / 1e6, (part.end_ns - part.start_ns) / 1e6
        axes.barh(row, length, left=start, color=COLOURS[row % len(COLOURS)], height=0.6)
        axes.annotate(f" {length:.2f} ms", (start + length, row), va="center", fontsize=8, color=INK)
    for row, kind in enumerate(kinds, len(parts)):
        moments = [(mark.start_ns - first) / 1e6 for mark in seen if (mark.side, mark.name) == kind]
        axes.plot(moments, [row] * len(moments), "|", color=INK, markersize=9)
        axes.annotate(f" {len(moments)}", (whole, row), va="center", fontsize=8, color=INK)
    labels = [part.owner for part in parts] + [f"{side}: {name.replace('_', ' ')}" for side, name in kinds]
    axes.set_yticks(range(rows), labels)
    axes.invert_yaxis()
    axes.set_xlim(-module_events.MARGIN_NS / 1e6 if kinds else 0, whole * 1.15)
    axes.set_xlabel("ms since the first event of the blackout")
    _plain(axes)
    return figure


def kexec_phases(rows: Sequence[Row]) -> Figure:
    """The ten phases of kexec + PMEM, and what multi-root has in place of each."""
    shown = rows[:-1]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.45 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, each in enumerate(shown):
        for value, shift, colour in ((each.theirs, -0.2, DOT), (each.ours, 0.2, BAR)):
            if value:
                hollow = colour == BAR and each.where == "overlapped"
                axes.barh(
                    row + shift,
                    value / 1e6,
                    height=0.36,
                    color="none" if hollow else colour,
                    edgecolor=colour,
                )
    _logarithmic(axes)
    axes.set_yticks(range(len(shown)), [each.phase for each in shown])
    axes.invert_yaxis()
    axes.set_xlabel("ms (logarithmic); blue: kexec + PMEM, red: multi-root, hollow: while the guest runs")
    _plain(axes)
    return figure


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write NAME.png and NAME.svg; returns the SVG element, to be put into a page."""
    figure.savefig(folder / f"{name}.png", dpi=110)
    path = folder / f"{name}.svg"
    figure.savefig(path)
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _logarithmic(axes: Axes) -> None:
    """Plain numbers at powers of ten, and between them where there is less than one."""
    axes.set_xscale("log")
    axes.autoscale_view()
    low, high = axes.get_xlim()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
