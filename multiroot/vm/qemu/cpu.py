# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's CPU in words that mean the same in every root.

What a root's CPUs can do, QEMU and KVM of that root decide: another kernel may give a guest more, or less. So
a VM's CPU is written out when it first starts, and never changes later. One that is to follow the root is
written out at each start, and does not change before the next one. A QEMU that can't give exactly this CPU
does not start, which is before anything stops in a handoff.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from multiroot.arch import current
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.vm.cpu_model import FROZEN, HOST, Value, parse
from multiroot.vm.qemu import probe
from multiroot.vm.qemu.command import Qemu
from multiroot.vm.qemu.kvm import tsc_khz
from multiroot.vm.qemu.options import option
from multiroot.vm.qemu.qmp import Qmp

TSC_FREQUENCY = "tsc-frequency"  # Hz
CPUINFO = Path("/proc/cpuinfo")
# QEMU's word for each feature that KVM lacks, with its place: by version CPUID.80000001H:ECX.osvw [bit 9] or
# CPUID[eax=01h].ECX.vmx [bit 5], and MSR(10AH).rdctl-no [bit 0].
_LACKS = re.compile(r"doesn't support requested feature: .*?(?:E[A-D]X|\))(?:\.(\S+))? \[bit (\d+)\]")
_TSC = re.compile(r"TSC frequency mismatch between VM \((\d+) kHz\) and host \((\d+) kHz\)")
_PHYSICAL = re.compile(r"^address sizes\s*: (\d+) bits physical", re.MULTILINE)


async def write_out(qemu: Qemu, model: str) -> str:
    """The CPU `model`, such as "frozen" or "EPYC,svm=off", as `qemu` understands it in this root.

    Raises BadRequestError for a model that it does not know, CommandError if it does not start.
    """
    name, given = parse(model)
    frozen = name == FROZEN
    if name in (FROZEN, HOST):
        name = qemu.cpu
    try:
        async with probe.asked(qemu) as qmp:
            answer = await _expanded(qmp, {"name": name, "props": given}, qemu.program)
    except probe.DidNotStartError as error:
        raise CommandError(f"QEMU did not start: {error.message}") from error
    # What the static model leaves out. Without KVM there is but one of each.
    more: dict[str, Value | None] = {TSC_FREQUENCY: given.get(TSC_FREQUENCY)}
    if qemu.accel == "kvm":
        more["phys-bits"] = physical_bits(CPUINFO.read_text())
        more[TSC_FREQUENCY] = more[TSC_FREQUENCY] or 1000 * await asyncio.to_thread(tsc_khz)
    return from_expansion(answer, more, current().cpus.newer - given.keys() if frozen else frozenset())


def from_expansion(answer: Any, more: Mapping[str, Value | None], without: Collection[str] = ()) -> str:
    """The CPU in an answer to query-cpu-model-expansion of type static, without some of its features, and
    with `more`, as far as that is known.

    QEMU's static model has nothing of its own, so that what it lacks need not be said. Raises CommandError
    for an answer that is none.
    """
    try:
        name, found = str(answer["model"]["name"]), dict(answer["model"]["props"])
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError("QEMU does not tell what a CPU model has", f"it said {answer}") from error
    # Nothing in a value ends it but a comma.
    kept = {
        key: value
        for key, value in found.items()
        if value is not False and key not in without and "," not in str(value)
    }
    kept |= {key: value for key, value in more.items() if value}
    return option(name, {key: kept[key] for key in sorted(kept)})


def physical_bits(cpuinfo: str) -> int | None:
    """How many bits a physical address has, by /proc/cpuinfo. QEMU's static model leaves it out."""
    found = _PHYSICAL.search(cpuinfo)
    return int(found[1]) if found else None


def lacking(log: str) -> list[str]:
    """The CPU features that a QEMU missed when it did not start, by what it said; none if it was not that."""
    return [name or f"bit {bit} of a word without names" for name, bit in _LACKS.findall(log)]


def tsc_refused(name: str, log: str) -> ConflictError | None:
    """The error for VM `name` if its QEMU did not start because of its TSC, by what it said.

    KVM slows a guest's TSC down, or speeds it up, only where the CPU can (TSC scaling). Elsewhere it must be
    the host's, give or take what NTP corrects.
    """
    found = _TSC.search(log)
    if not found:
        return None
    guest, host = (f"{int(khz) / 1000:.3f} MHz" for khz in found.groups())
    return ConflictError(
        f"this root cannot give {name} its TSC of {guest}: its own has {host}, and its CPUs scale none",
        "without tsc-frequency in its CPU a VM takes that of the root where it starts",
    )


def refused(name: str, lacks: list[str]) -> ConflictError:
    """The error that says so of VM `name`."""
    return ConflictError(
        f"this root cannot give {name} its CPU, it lacks: {', '.join(lacks)}",
        "a VM with --cpu and a model that all roots have can go to any of them",
    )


async def _expanded(qmp: Qmp, model: Mapping[str, Any], program: Path) -> Any:
    try:
        return await qmp.execute("query-cpu-model-expansion", type="static", model=model)
    except CommandError as error:
        raise BadRequestError(
            f"no CPU {model['name']!r} with these features: {error.message}",
            f"what there is: multiroot lab exec -- {program} -cpu help",
        ) from error
