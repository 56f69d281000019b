# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of launch/ in their order: prepare, load, start, stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from multiroot.device.handle import Device
from multiroot.device.uapi import CpuState, PeerIndex, Started, lib
from multiroot.errors import ConflictError
from multiroot.kexec.boot import BootPlan
from multiroot.kexec.cpio import behind
from multiroot.kexec.target import target
from multiroot.launch import carve
from multiroot.launch import load as loading
from multiroot.launch.facts import Facts, root_spec, take_inventory
from multiroot.launch.given import pack
from multiroot.launch.kernels import KernelFiles, config_hz
from multiroot.launch.load import Entry
from multiroot.launch.record import Loaded, this_boot
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.plan.planner import Plan, plan
from multiroot.plan.request import Request

STOP_THEM = "stop them there; `multiroot kexec stop --force` loses them"

# struct multiroot_side.state
_SIDE_STATES = {
    lib.MULTIROOT_SIDE_ABSENT: "absent",
    lib.MULTIROOT_SIDE_STARTED: "started",
    lib.MULTIROOT_SIDE_ATTACHED: "attached",
    lib.MULTIROOT_SIDE_READY: "ready",
    lib.MULTIROOT_SIDE_PARKED: "parked",
}


@dataclass(frozen=True)
class Prepared:
    """A plan and what is to be loaded for it; nothing was changed yet."""

    plan: Plan
    boot: BootPlan

    @property
    def entry(self) -> Entry:
        return Entry.of(self.boot)


def prepare(
    device: Device | None,
    facts: Facts,
    files: KernelFiles,
    command_line: str,
    request: Callable[[int], Request],
    given: Mapping[str, bytes] | None = None,
) -> Prepared:
    """Read the files, plan, build. `request` is told the least size of a carve in bytes; `given` is for the
    new root alone (see `launch.given`).

    Raises BadRequestError or ConflictError; changes nothing.
    """
    kernel, initrd = files.read()
    if given and initrd:
        initrd = behind(initrd, pack(given))
    how = target()
    image = how.read_image(kernel)
    needed = how.minimum_carve(image, len(initrd))
    made = plan(take_inventory(device, facts), request(needed))
    hz = config_hz(image.release, files.kernel)
    return Prepared(made, how.build(kernel, initrd, command_line, root_spec(made, facts, hz)))


def phases() -> Phases:
    """For steps taken by hand."""
    return Phases("this root")


def load(device: Device, facts: Facts, prepared: Prepared, record: Phases) -> Loaded:
    """Take CPUs and memory and copy the segments; on any failure everything is as it was.

    Raises ConflictError when a root is loaded already, somebody else holds the device's claim, or a
    CPU or memory block can not be had.
    """
    made = prepared.plan
    device.claim()
    if device.info().carved:
        raise ConflictError("a new root is loaded already", "stop it first: `multiroot kexec stop`")
    with ExitStack() as undo:
        with record.phase(PhaseName.OFFLINE, cpus=len(made.cpus), blocks=len(made.blocks)):
            taken = carve.take(made)
        undo.callback(carve.give_back, taken)
        with record.phase(PhaseName.CARVE, bytes=made.carve.size):
            loading.carve(device, made)
            undo.callback(loading.uncarve, device)
            loading.grant(device, made)
            undo.callback(loading.reclaim, device, made)
        with record.phase(PhaseName.LOAD) as attributes:
            attributes["bytes"] = loading.write(device, prepared.boot)
        undo.pop_all()
    return Loaded(
        boot_id=this_boot(),
        root=facts.next_root,
        release=prepared.boot.release,
        command_line=prepared.boot.command_line,
        tsc_khz=facts.tsc_khz,
        plan=made,
        taken=taken,
        entry=prepared.entry,
    )


def start(device: Device, loaded: Loaded, timeout_ms: int) -> tuple[Loaded, Started]:
    """Start what was loaded. ConflictError when it runs, WaitTimeoutError when it does not get going."""
    device.claim()
    started = loading.start(device, loaded.plan, loaded.entry, timeout_ms)
    return replace(loaded, start_tsc=started.tsc_sipi), started


def stop(device: Device, loaded: Loaded, *, force: bool = False) -> tuple[str, ...]:
    """Stop or unload; CPUs and memory taken for it come back. May be called again after a failure.

    Raises OwnsVmsError, having changed nothing, when the new root owns VMs, unless `force`. Returns the names
    of the VMs that were lost.
    """
    device.claim()
    lost = loading.reclaim(device, loaded.plan, force=force, hint=STOP_THEM)
    carve.online_cpus(loaded.taken.cpus)
    loading.uncarve(device)
    carve.online_blocks(loaded.taken.blocks)
    return lost


def state(device: Device, loaded: Loaded) -> str:
    """How far the new root has come: loaded, or the state in its control page."""
    if device.cpu(loaded.plan.cpus[0].number).state is not CpuState.STARTED:
        return "loaded"
    return _SIDE_STATES.get(device.control(PeerIndex.CHILD).theirs.state, "absent")
