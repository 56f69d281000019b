# SPDX-License-Identifier: GPL-2.0-or-later
"""Which device has how much of saving and loading a device state, by QEMU's own trace. Pure.

QEMU: trace-events of migration/, system/ and accel/kvm/; what has them written is vm/qemu/own_trace.py. Its
lines have no times; a device's line comes when it is saved or loaded, and says how long that took.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from multiroot.bench.results.samples import Sample
from multiroot.phases import AttrValue, Phase

SAVED, LOADED = "saved by QEMU", "loaded by QEMU"  # sides of phases
SMALL_NS = 100_000  # devices that take less of both are told as one
OTHERS, ALL = "all others", "all"

# Before it there are a thread and a time if QEMU was told that messages are to have them.
_DOWNTIME = re.compile(r"\bvmstate_downtime_(save|load) type=\S+ idstr=(.*) instance_id=(\d+) downtime=(\d+)")
_COUNTED = {"flatview_new": "maps", "kvm_set_user_memory": "slots"}
_COUNTED_LINE = re.compile(rf"\b({'|'.join(_COUNTED)}) ")


@dataclass(frozen=True)
class Device:
    """ns that one had, how often QEMU built its memory map anew for it, and how many slots of KVM it set."""

    name: str
    side: str
    ns: int
    maps: int = 0
    slots: int = 0


def parse(text: str) -> list[Device]:
    """The devices in QEMU's trace, in its order."""
    found: list[Device] = []
    counted = dict.fromkeys(_COUNTED.values(), 0)
    for line in text.splitlines():
        if device := _DOWNTIME.search(line):
            number = f" {device[3]}" if device[3] != "0" else ""
            side = SAVED if device[1] == "save" else LOADED
            # What came before the first was before the blackout.
            mine = counted if found else {}
            found.append(Device(device[2] + number, side, int(device[4]) * 1000, **mine))
            counted = dict.fromkeys(counted, 0)
        elif event := _COUNTED_LINE.search(line):
            counted[_COUNTED[event[1]]] += 1
    return found


def phases(devices: Sequence[Device], start_ns: int) -> list[Phase]:
    """As phases of a sample, one after the other from `start_ns` on, for when they were is not told."""
    found = []
    for device in devices:
        attrs: dict[str, AttrValue] = {"maps": device.maps, "slots": device.slots}
        found.append(Phase(device.name, device.side, start_ns, device.ns, attrs=attrs))
        start_ns += device.ns
    return found


@dataclass(frozen=True)
class Row:
    """Means of all samples: ns to save and to load, maps built and slots set while loading."""

    device: str
    saved: float
    loaded: float
    maps: float
    slots: float


def rows(samples: Sequence[Sample]) -> list[Row]:
    """Of samples that have such phases; the device with most of it first, then small ones, then all."""
    each = [devices for sample in samples if (devices := _devices(sample))]
    if not each:
        return []

    names = {device.name for taken in each for device in taken}
    found = [_row(name, {name}, each) for name in names]
    shown = [row for row in found if max(row.saved, row.loaded) >= SMALL_NS]
    shown.sort(key=lambda row: (-row.saved - row.loaded, row.device))
    small = names - {row.device for row in shown}
    return [*shown, *([_row(OTHERS, small, each)] if small else []), _row(ALL, names, each)]


def _row(title: str, names: AbstractSet[str], samples: Sequence[Sequence[Device]]) -> Row:
    """Of all devices with these names."""

    def mean(side: str, what: Callable[[Device], int]) -> float:
        return statistics.fmean(
            sum(what(device) for device in devices if device.side == side and device.name in names)
            for devices in samples
        )

    return Row(
        title,
        mean(SAVED, lambda device: device.ns),
        mean(LOADED, lambda device: device.ns),
        mean(LOADED, lambda device: device.maps),
        mean(LOADED, lambda device: device.slots),
    )


def _devices(sample: Sample) -> list[Device]:
    return [
        Device(phase.name, phase.side, phase.duration_ns or 0,
               int(phase.attrs.get("maps", 0)), int(phase.attrs.get("slots", 0)))
        for phase in sample.phases if phase.side in (SAVED, LOADED)
    ]  # fmt: skip
