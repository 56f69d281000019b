# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's folder made readable: plots, a Chrome trace, and one HTML file that needs nothing else."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from multiroot.bench.names import KEXEC, NEW_ROOT, TRACED
from multiroot.bench.results import inside, kexec_phases, plots, render, trace
from multiroot.bench.results.samples import Run, Sample
from multiroot.bench.results.summary import noise
from multiroot.bench.results.view import View

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .9em; border-bottom: 1px solid #ddd; text-align: left }
.n { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto }
.warn { background: #fff4d6; padding: .5em 1em }
"""


def write(run: Run, view: View, folder: Path) -> Path:
    """Write everything into `folder`; returns the HTML file."""
    metric, base = view.metric, view.base
    parts = [f"<h1>multiroot bench {escape(run.header.bench)}</h1>", _provenance(run)]
    warnings = noise(run, metric)
    if warnings:
        parts.append(f'<p class="warn">Flagged noisy: {escape("; ".join(warnings))}</p>')
    parts += ["<h2>Contenders</h2>", plots.save(plots.contenders(run, metric), folder, "contenders")]
    if render.ratios(run, metric, base):
        parts.append(_table(render.ratio_table(run, metric, base)))
    for each in view.also:
        parts.append(plots.save(plots.contenders(run, each), folder, f"contenders-{each}"))
        parts.append(_table(render.ratio_table(run, each, base)))
    parts.append(_table(render.summary_table(run, view.metrics)))
    parts += _skipped(run)
    if run.values(KEXEC, "total_ns"):
        rows = kexec_phases.table(run, KEXEC, run.any_kind(view.ours), NEW_ROOT)
        parts += [
            "<h2>The ten phases of kexec + PMEM (the LPC 2021 method)</h2>",
            plots.save(plots.kexec_phases(rows), folder, "kexec-phases"),
        ]
        parts.append(_table(render.kexec_table(rows)))
    traced = typical(run, run.any_kind(TRACED), "traced_blackout_ns")
    sample = traced or typical(run, run.any_kind(view.ours), metric)
    if sample and trace.blackout_parts(sample.phases):
        (folder / "trace.json").write_text(json.dumps(trace.chrome(sample.phases)))
        parts += [
            "<h2>One blackout from the inside</h2>",
            plots.save(plots.blackout(sample), folder, "blackout"),
        ]
        which = "One with tracepoints on" if traced else "The sample nearest to the median"
        parts.append(f"<p>{which}; trace.json beside this file has all of its phases.</p>")
        parts.append(f"<p>One clock: {escape(render.clocks(run))}.</p>" if render.clocks(run) else "")
    for told in inside.tables(run, view):
        parts += [f"<h2>{escape(told.title)}</h2>", f"<p>{escape(told.note)}</p>", _table(told.table)]
    page = folder / "report.html"
    body = "\n".join(parts)
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>multiroot bench</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n",
        encoding="utf-8",
    )
    return page


def typical(run: Run, contender: str, metric: str) -> Sample | None:
    """The contender's sample nearest to its median."""
    samples = [s for s in run.samples if s.contender == contender and metric in s.values]
    ordered = sorted(samples, key=lambda sample: sample.values[metric])
    return ordered[len(ordered) // 2] if ordered else None


def _provenance(run: Run) -> str:
    header = run.header
    host = ", ".join(f"{key} {value}" for key, value in header.host.items())
    versions = ", ".join(f"{key} {value}" for key, value in header.versions.items())
    lines = (
        f"{header.started}, revision {header.revision}, seed {header.seed}, load before {header.load}",
        host,
        versions,
        json.dumps(header.options),
    )
    return "<p>" + "<br>".join(map(escape, lines)) + "</p>"


def _skipped(run: Run) -> list[str]:
    notes = [f"{name} left out: {why}" for name, why in run.skipped.items()]
    notes += [f"{s.contender}, round {s.round}, failed: {s.failed}" for s in run.samples if s.failed]
    return ["<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"] if notes else []


def _table(table: render.Table) -> str:
    headings, rows = table
    numbers = [heading.endswith(" >") for heading in headings]

    def row(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(
            f"<{tag}{' class=n' if number else ''}>{escape(cell)}</{tag}>"
            for cell, number in zip(cells, numbers, strict=True)
        ) + "</tr>"  # fmt: skip

    head = row(tuple(heading.removesuffix(" >") for heading in headings), "th")
    return f"<table>{head}{''.join(row(each, 'td') for each in rows)}</table>"
