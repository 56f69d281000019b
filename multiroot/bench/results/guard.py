# SPDX-License-Identifier: GPL-2.0-or-later
"""The regression guard: a few ratios of a short run beside those recorded last. Nothing fails by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from multiroot.bench.names import IN_PLACE, KEXEC, NEW_ROOT, OURS
from multiroot.bench.results import render
from multiroot.bench.results.samples import Run
from multiroot.bench.results.summary import Ratio, ratio
from multiroot.errors import BadRequestError
from multiroot.lab import paths

CONTENDERS = (OURS, IN_PLACE, KEXEC)
ROUNDS = 4
FILE = paths.source_dir() / "qemu-lab" / "bench-ratios.json"

# What is compared: numerator, denominator and metric, each a ratio within one run.
WATCHED = {
    "multi-root / in-place, blackout": (OURS, IN_PLACE, "blackout_ns"),
    "multi-root / in-place, gap": (OURS, IN_PLACE, "gap_ns"),
    "kexec-pmem / multi-root, blackout": (KEXEC, OURS, "blackout_ns"),
    "multi-root / in-place, bytes sent": (OURS, IN_PLACE, "sent_bytes"),
    "new root to agent / multi-root blackout": (NEW_ROOT, OURS, "ready_ns"),
}
_AGAINST = {"ready_ns": "blackout_ns"}


def ratios(run: Run) -> dict[str, Ratio]:
    """The watched ratios that this run has samples for."""
    found = {}
    for name, (above, below, metric) in WATCHED.items():
        top, bottom = run.values(above, metric), run.values(below, _AGAINST.get(metric, metric))
        if top and bottom and min(bottom) > 0:
            found[name] = ratio(top, bottom)
    return found


def recorded() -> dict[str, Any]:
    """What was recorded last; nothing if nothing was."""
    if not FILE.exists():
        return {}
    try:
        data: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
        return {name: data["ratios"][name] for name in data["ratios"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequestError(f"{FILE} holds no ratios: {error}", "record them: --record") from error


def record(run: Run, now: Mapping[str, Ratio]) -> None:
    """Keep these ratios, with where they come from."""
    header = run.header
    data = {
        "recorded": header.started,
        "revision": header.revision,
        "host": header.host,
        "versions": header.versions,
        "load": header.load,
        "ratios": {
            name: {"value": round(r.value, 3), "low": round(r.low, 3), "high": round(r.high, 3)}
            for name, r in now.items()
        },
    }
    FILE.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def change_table(before: Mapping[str, Any], now: Mapping[str, Ratio]) -> render.Table:
    """A row for each ratio measured now; the change counts as one only outside of the recorded spread."""
    rows: list[tuple[str, ...]] = []
    for name, found in now.items():
        old = before.get(name)
        if old is None:
            rows.append((name, "-", f"{found.value:.2f}", "not recorded yet"))
            continue
        change = f"{found.value / old['value'] - 1:+.0%}"
        within = old["low"] <= found.value <= old["high"]
        rows.append(
            (name, f"{old['value']:.2f}", f"{found.value:.2f}", change + (" (in its spread)" * within))
        )
    return ("ratio", "recorded >", "now >", "change"), rows
