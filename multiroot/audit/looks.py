# SPDX-License-Identifier: GPL-2.0-or-later
"""What the roots themselves say of state that no device sees: MSRs, ACPI tables, clocks, doorbells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiroot import arch
from multiroot.audit import trace
from multiroot.audit.judge import Doorbell
from multiroot.audit.rows import Role
from multiroot.audit.trace import MsrWrite
from multiroot.errors import MultirootError
from multiroot.lab.lab import Lab

# Parameters of a new root's kernel, so that the first writes are in its trace too
# (Documentation/admin-guide/kernel-parameters.txt).
TRACE_FROM_START = "trace_event=msr:write_msr trace_buf_size=16M"
_TRACING = "/sys/kernel/tracing"
_START_TRACE = f"echo 16384 >{_TRACING}/buffer_size_kb && echo 1 >{_TRACING}/events/msr/write_msr/enable"
# Reading this file takes the events out of the kernel's buffer; it would wait for more.
_TAKE_TRACE = f"""
import os, sys
pipe = os.open("{_TRACING}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
try:
    while data := os.read(pipe, 1 << 20):
        sys.stdout.buffer.write(data)
except BlockingIOError:
    pass
"""
_REVISION = 0x8B
_MTRRS = frozenset({*range(0x200, 0x270), 0x2FF})


@dataclass(frozen=True)
class Look:
    """What one root was like at one time. `msrs` by CPU and number; `acpi` has each table's digest."""

    msrs: dict[int, dict[int, int]]
    acpi: dict[str, str]
    clock: str
    doorbells: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Look:
        return cls(
            {
                int(cpu): {int(msr, 16): value for msr, value in values.items()}
                for cpu, values in data["msrs"].items()
            },
            dict(data["acpi"]),
            str(data["clock"]),
            tuple((bell["root"], bell["apic_id"], bell["vector"]) for bell in data["doorbells"]),
        )


def look(lab: Lab, root: str) -> Look:
    """Look around in the root that the lab calls `root`."""
    text = (Path(__file__).with_name("probe.py")).read_text()
    return Look.from_json(json.loads(_run(lab, root, ["python3", "-c", text])))


def start_msr_trace(lab: Lab, root: str) -> None:
    _run(lab, root, ["sh", "-c", _START_TRACE])


def take_msr_trace(lab: Lab, root: str) -> list[MsrWrite]:
    """What was written since the trace began or was taken last."""
    return trace.parse_msrs(_run(lab, root, ["python3", "-c", _TAKE_TRACE]))


def doorbells(old: Look, new_root: int) -> tuple[Doorbell, ...]:
    """Where both roots take interrupts, as the old root's control page has it."""
    return tuple(
        Doorbell(Role.NEW if root == new_root else Role.OLD, apic_id, vector)
        for root, apic_id, vector in old.doorbells
    )


def differences(compare: str, before: Look, old: Look, new: Look) -> list[str]:
    """What is not as it should be; `before` is the old root alone, `old` and `new` are at the end. Pure."""
    if compare == "acpi":
        changed = [name for name in before.acpi if old.acpi.get(name) != before.acpi[name]]
        given = {Path(table).name for table in arch.current().memory.node_tables}
        shared = [name for name, digest in new.acpi.items() if digest in before.acpi.values()]
        return [f"table {name} of the old root changed" for name in changed] + [
            f"the new root has the firmware's table {name}" for name in shared if name not in given
        ]
    if compare == "clock":
        return [
            f"the {name} root's clock source is {seen.clock}"
            for name, seen in (("old", old), ("new", new))
            if seen.clock not in arch.current().cpus.clock_sources
        ]
    return _msr_differences(compare == "microcode", {"old, before": before, "old": old, "new": new})


def _msr_differences(revision: bool, looks: dict[str, Look]) -> list[str]:
    found: list[str] = []
    first: dict[int, tuple[int, str]] = {}
    for name, seen in looks.items():
        if not seen.msrs:
            found.append(f"no MSR could be read in the {name} root")
        for cpu, values in seen.msrs.items():
            for msr, value in _comparable(values).items():
                expected, where = first.setdefault(msr, (value, f"CPU {cpu} ({name})"))
                if (msr == _REVISION) is revision and value != expected:
                    found.append(
                        f"MSR {msr:#x} is {expected:#x} on {where} but {value:#x} on CPU {cpu} ({name})"
                    )
    return found


def _comparable(values: dict[int, int]) -> dict[int, int]:
    """Without the MTRRs of a CPU that uses none: QEMU's INIT clears them all, hardware's leaves them."""
    if any(value for msr, value in values.items() if msr in _MTRRS):
        return values
    return {msr: value for msr, value in values.items() if msr not in _MTRRS}


def _run(lab: Lab, root: str, argv: list[str]) -> str:
    done = lab.run(argv, root=root, timeout=300)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise MultirootError(f"cannot look into the {root} root: {said}")
    return done.stdout
