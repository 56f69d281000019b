# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages for people: their tables are whole, and the figures that code has are those of the code."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from multiroot.coordinator import adoption, canary
from multiroot.handoff import giver, incoming, terms, wire
from multiroot.root import peers

TOP = Path(__file__).parents[2]
PAGES = sorted(
    [*TOP.glob("*.md"), *TOP.glob("*/*.md"), *TOP.glob("csrc/**/*.md"), *TOP.glob("qemu-lab/**/*.md")]
)
WAITS = {
    "giver: the answer to Prepare": (giver.PREPARE_TIMEOUT_S,),
    "giver: the whole of Transfer": (giver.TRANSFER_TIMEOUT_S,),
    "giver: the answer to Abort": (giver.ABORT_TIMEOUT_S,),
    "giver: the owner word to be the taker's": (terms.DOWNTIME_LIMIT_MS / 1000,),
    "giver: a taker whose heartbeat stands still": (peers.GONE_NS / 1e9,),
    "taker: a giver that connects after Prepare": (incoming.PREPARED_FOR_S,),
    "taker: one that has connected and calls Transfer": (incoming.CONNECTED_FOR_S,),
    "both: the TCP connection for the device state": (wire.CONNECT_TIMEOUT_S,),
    "canary: its guest's boot": (canary.BOOT_S,),
    "canary: a handoff; 128 ticks of its guest": (canary.MOVE_S, canary.TICKS_S),
}


def section(page: str, title: str) -> str:
    text = (TOP / page).read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_each_table_has_a_head(page: Path) -> None:
    """A blank line in a table makes lines with bars of its end."""
    lines = ["", *page.read_text().splitlines(), ""]
    starts = [
        at
        for at, (before, line) in enumerate(pairwise(lines), 1)
        if line.startswith("|") and not before.startswith("|")
    ]
    assert [lines[at] for at in starts if not re.fullmatch(r"\|[-:| ]+\|", lines[at + 1])] == []


def test_how_long_each_waits_is_told_as_it_is() -> None:
    rows = re.findall(
        r"^\| (\w+) \| (.*) \| (.*) \|$", section("docs/handoff.md", "How long each waits"), re.M
    )
    told = {
        f"{who}: {what}": re.findall(r"(?<!\S)[0-9.]+(?=[;,]|$)", figures) for who, what, figures in rows[1:]
    }
    assert len(told) == len(WAITS)
    for what, seconds in WAITS.items():
        (found,) = [figures for each, figures in told.items() if each.startswith(what)]
        assert tuple(map(float, found)) == seconds, what
    assert canary.ENOUGH_TICKS == 128
    assert canary.BOOTS == 3


def test_when_a_lock_is_taken_from_a_root_is_told_as_it_is() -> None:
    source = (TOP / "csrc/kmod/iommu/tables.c").read_text()
    real = dict(re.findall(r"#define (LOCK_\w+)\t+\((\d+) \* NSEC_PER_SEC\)", source))
    (told,) = re.findall(
        r"after (\d+) s if the root that has it is not alive by the ledger, after (\d+) s if it is",
        (TOP / "docs/kernel-module.md").read_text(),
    )
    assert told == (real["LOCK_NS"], real["LOCK_LIVING_NS"])


def test_how_long_an_ended_root_may_go_on_is_told_as_it_is() -> None:
    """And a root that takes over is still there when the time is over."""
    source = (TOP / "csrc/kmod/core/adopt.c").read_text()
    (patience,) = re.findall(r"#define PATIENCE_NS\t+\((\d+) \* NSEC_PER_SEC\)", source)
    assert int(patience) < adoption.PARK_S
    assert f"not parked by itself after {patience} s" in (TOP / "docs/retire.md").read_text()
    assert f"from {patience} s after the first such answer on" in (TOP / "docs/kernel-module.md").read_text()


@pytest.mark.parametrize("form", ["vmx_short", "kvm_short"])
def test_how_long_a_short_form_takes_is_told_where_it_is_described(form: str) -> None:
    markers = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    (minutes,) = [found[1] for each in markers if (found := re.match(rf"{form}: .*, (.* minutes)", each))]
    for page in ("qemu-lab/README.md", "CONTRIBUTING.md"):
        lines = [line for line in (TOP / page).read_text().splitlines() if f'ARGS="-m {form}"' in line]
        assert any(minutes in line for line in lines), page
