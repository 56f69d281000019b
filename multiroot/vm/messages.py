# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs, extents and ticks as protocol messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from multiroot.arena.allocator import Extent
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.definition import VmDefinition
from multiroot.vm.fields import from_message, to_message
from multiroot.vm.notices import Notice, newest
from multiroot.vm.ticks import Frames, Report, Stretch, Tick


def definition_to_proto(definition: VmDefinition) -> vm_pb2.VmDefinition:
    return to_message(definition, vm_pb2.VmDefinition)


def definition_from_proto(message: vm_pb2.VmDefinition) -> VmDefinition:
    """The definition as sent, unset fields at their defaults, not checked yet."""
    return from_message(message, VmDefinition)


def notices_to_proto(notices: Iterable[Notice]) -> list[vm_pb2.Notice]:
    return [vm_pb2.Notice(at_ns=each.at_ns, what=each.what) for each in notices]


def notices_from_proto(messages: Iterable[vm_pb2.Notice]) -> tuple[Notice, ...]:
    """Those that are kept."""
    return newest(Notice(each.at_ns, each.what) for each in messages)


def stations_to_proto(stations: Mapping[str, str]) -> list[vm_pb2.Station]:
    """Addresses of cards, by MAC address."""
    return [vm_pb2.Station(mac=mac, address=address) for mac, address in sorted(stations.items())]


def stations_from_proto(messages: Iterable[vm_pb2.Station]) -> dict[str, str]:
    return {each.mac: each.address for each in messages}


def extent_to_proto(extent: Extent) -> vm_pb2.Extent:
    return vm_pb2.Extent(offset=extent.offset, size=extent.size)


def ticks_to_proto(stretch: Stretch) -> vm_pb2.Ticks:
    reports = [tick.report for tick in stretch.ticks if tick.report]
    return vm_pb2.Ticks(
        counter=[tick.counter for tick in stretch.ticks],
        seen_ns=[tick.seen_ns for tick in stretch.ticks],
        reports=[vm_pb2.TickReport(**asdict(report)) for report in reports],
        head=stretch.head,
        head_ns=stretch.head_ns or 0,
        tail=stretch.tail,
        frames=[vm_pb2.Frames(**asdict(each)) for each in stretch.frames],
    )


def ticks_from_proto(message: vm_pb2.Ticks) -> Stretch:
    """The stretch as the other side saw it; a report belongs to the tick of the same counter."""
    reports = {
        report.counter: Report(
            report.counter, report.boot_id, report.mono_ns, report.wall_ns,
            report.checked_bytes, report.bad_bytes, report.max_gap_ns,
        )
        for report in message.reports
    }  # fmt: skip
    ticks = tuple(
        Tick(counter, seen_ns, reports.get(counter))
        for counter, seen_ns in zip(message.counter, message.seen_ns, strict=True)
    )
    frames = tuple(
        Frames(each.seen_ns, each.first, each.last, each.count, each.lost, each.again, each.dropped)
        for each in message.frames
    )
    return Stretch(message.head, message.head_ns or None, ticks, message.tail, frames)
