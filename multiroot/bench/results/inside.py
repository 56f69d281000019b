# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's handoffs from the inside, as tables: who owns the blackout, and who the guest's gap. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from multiroot.bench.names import traced
from multiroot.bench.results import guest_gap, network, qemu_trace, render
from multiroot.bench.results.render import Table
from multiroot.bench.results.samples import Run, Sample, kind_of, variant_name
from multiroot.bench.results.view import View

Row = TypeVar("Row")


class Told(NamedTuple):
    """A table with what a reader must know."""

    title: str
    note: str
    table: Table


_GAP_NOTE = (
    "What the guest's virtual CPU did from its last tick to STOP, in the VMM that gives, and from RESUME to"
    f" its first tick; what it did for each of the {guest_gap.AFTER} ticks after that, and for one of the"
    f" last {guest_gap.USUAL}. Means of all handoffs with tracepoints on, which make it all a little longer."
    " In parentheses: how many exits that are."
)
_QEMU_NOTE = (
    "By QEMU's own trace, which makes it a little longer; means. In parentheses: how often QEMU built its map"
    " of memory anew for a device that it loaded, and how many slots of KVM it set."
)
_NETWORK_NOTE = "From RESUME on. Frames are those that had waited for the guest with the giver."


def tables(run: Run, view: View) -> list[Told]:
    """All that the run has samples for; each kind of VM has tables of its own."""
    kinds = dict.fromkeys(kind_of(name) for name in run.contenders())
    return [told for kind in kinds for told in _of_kind(run, view, kind)]


def _of_kind(run: Run, view: View, kind: str) -> Iterator[Told]:
    suffix = f", {kind}" if kind else ""
    owners = render.owners_table(run, [variant_name(name, kind) for name in view.owners])
    if owners[1]:
        yield Told(f"Who owns the blackout{suffix}", "Medians.", owners)
    if devices := _each(run, view, kind, qemu_trace.rows):
        yield Told(f"What QEMU does in the blackout{suffix}", _QEMU_NOTE, _devices_table(devices))
    for name, rows in _each(run, view, kind, guest_gap.rows).items():
        yield Told(f"The guest's gap from the inside: {name}{suffix}", _GAP_NOTE, _gap_table(rows))
    for name in view.owners:
        if heard := network.rows(_samples(run, variant_name(name, kind))):
            title = f"The network hears where the guest runs: {name}{suffix}"
            yield Told(title, _NETWORK_NOTE, _network_table(heard))


def _each(
    run: Run, view: View, kind: str, rows: Callable[[Sequence[Sample]], list[Row]]
) -> dict[str, list[Row]]:
    """The rows of each owner that has any with tracepoints on."""
    found = {name: rows(_samples(run, variant_name(traced(name), kind))) for name in view.owners}
    return {name: each for name, each in found.items() if each}


def _samples(run: Run, contender: str) -> list[Sample]:
    return [sample for sample in run.samples if sample.contender == contender]


def _ms(ns: float, *counts: float) -> str:
    """With what is counted in parentheses, if that is anything."""
    shown = ", ".join(f"{count:.1f}" for count in counts)
    return f"{ns / 1e6:.2f}" + (f" ({shown})" if max(counts, default=0) >= 0.05 else "")


def _gap_table(owners: Sequence[guest_gap.Row]) -> Table:
    """Who owns the guest's gap, in ms, and by how many exits."""
    body: list[tuple[str, ...]] = [
        (row.owner, *(_ms(*both) for both in zip(row.ns, row.exits, strict=True))) for row in owners
    ]
    return ("the virtual CPU, ms", *(f"{name} >" for name in guest_gap.NAMES)), body


def _devices_table(devices: dict[str, list[qemu_trace.Row]]) -> Table:
    """Saving and loading of each contender side by side."""
    names = dict.fromkeys(row.device for rows in devices.values() for row in rows)
    # The sums last, also when only one of the contenders has small ones.
    last = [name for name in (qemu_trace.OTHERS, qemu_trace.ALL) if name in names]
    body: list[tuple[str, ...]] = []
    for name in [*(each for each in names if each not in last), *last]:
        cells = [name]
        for rows in devices.values():
            row = next((row for row in rows if row.device == name), None)
            cells += [_ms(row.saved), _ms(row.loaded, row.maps, row.slots)] if row else ["", ""]
        body.append(tuple(cells))
    heads = [f"{name}, {what}, ms >" for name in devices for what in ("saves", "loads")]
    return ("device", *heads), body


def _network_table(rows: Sequence[network.Row]) -> Table:
    body: list[tuple[str, ...]] = [
        (row.what, _ms(row.after.median), _ms(row.after.min), _ms(row.after.max), str(row.after.n),
         "" if row.frames is None else str(row.frames))
        for row in rows
    ]  # fmt: skip
    return ("what has happened", "median, ms >", "min >", "max >", "n >", "frames >"), body
