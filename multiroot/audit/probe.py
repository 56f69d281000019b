# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs inside a root, as `python3 -c` with this text: prints as JSON what the audit compares between roots.

Only what every root has: the standard library, and the module's device for where doorbells are.
"""

import hashlib
import json
import pathlib
import struct
import subprocess
import sys

# MTRR capabilities, ranges and default type; PAT; microcode revision. What a CPU lacks is left out.
MSRS = [0xFE, *range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x2FF, 0x277, 0x8B]


def msrs() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for device in sorted(pathlib.Path("/dev/cpu").glob("*/msr")):
        values = found.setdefault(device.parent.name, {})
        with device.open("rb", buffering=0) as file:
            for msr in MSRS:
                try:
                    file.seek(msr)
                    values[hex(msr)] = struct.unpack("<Q", file.read(8))[0]
                except OSError:  # this CPU has none
                    continue
    return found


def acpi() -> dict[str, str]:
    folder = pathlib.Path("/sys/firmware/acpi/tables")
    tables = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables}


def doorbells() -> list[dict[str, int]]:
    from multiroot.device.handle import Device
    from multiroot.device.uapi import PeerIndex
    from multiroot.errors import PeerLostError

    found = []
    with Device() as device:
        try:
            page = device.control(PeerIndex.CHILD)
        except PeerLostError:
            return []
        for side in (page.mine, page.theirs):
            found.append({"root": side.root, "apic_id": side.hardware_id, "vector": side.vector})
    return found


subprocess.run(["modprobe", "msr"], check=True)
clock = pathlib.Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
json.dump({"msrs": msrs(), "acpi": acpi(), "clock": clock, "doorbells": doorbells()}, sys.stdout)
