# SPDX-License-Identifier: GPL-2.0-or-later
"""What a bench has measured of kexec + PMEM beside our handoff, in one run. Without a run: nothing."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from multiroot.bench import names

SUMMARY = "summary.json"
METRIC = "blackout_ns"


def newest(folder: Path) -> dict[str, Any]:
    """The newest run of the bench below `folder` that measured both: medians in ns and when; else {}."""
    if not folder.is_dir():
        return {}
    for run in sorted((each for each in folder.iterdir() if each.is_dir()), reverse=True):
        if found := _read(run / SUMMARY):
            return found
    return {}


def _read(path: Path) -> dict[str, Any]:
    """The figures of one run; {} if it has not both, or cannot be read."""
    try:
        data = json.loads(path.read_text())
        medians = {
            name: values[METRIC]["median"] for name, values in data["summary"].items() if METRIC in values
        }
        ours, kexec = _of(medians, names.OURS), _of(medians, names.KEXEC)
        started = str(data["header"]["started"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A run that was cut short has no summary, or half of one: it has nothing to say.
        return {}
    return {"ours_ns": ours, "kexec_ns": kexec, "started": started} if ours and kexec else {}


def _of(medians: dict[str, Any], contender: str) -> float:
    """A contender's median, whatever kinds of VM it ran with; 0 if it took no part."""
    values = [float(value) for name, value in medians.items() if name.partition(", ")[0] == contender]
    return statistics.median(values) if values else 0.0
