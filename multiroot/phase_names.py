# SPDX-License-Identifier: GPL-2.0-or-later
"""Every name of a phase, in one place.

Whoever times a phase and whoever looks for one use the same constant, so a rename cannot leave one of them
behind. The values appear in recorded samples and in journals: change one only together with its readers.

Four kinds of names are made from something else and are not here: "build ARTIFACT", "generation N",
a bench's contenders, and the events of the kernel modules' tracepoints. The functions below make those
that have a fixed part.
"""

from __future__ import annotations

from enum import StrEnum


class PhaseName(StrEnum):
    """Phases of our own programs, in the order in which they usually happen."""

    # The workstation
    PROBE_KVM = "probe KVM"
    BOOT = "boot"
    WAIT_FOR_AGENT = "wait for the agent"
    START_VMS = "start the VMs"
    WAIT_FOR_GUESTS = "wait for the guests"
    WAIT_FOR_FRAMES = "wait for frames on the card"
    START_STREAMS = "let the guest work for those outside"
    COUNT = "count what it did"
    WATCH_GUESTS = "watch the guests go on"
    LOOK_INTO_OLD_ROOT = "look into the old root"
    LOOK_INTO_BOTH_ROOTS = "look into both roots"
    RETIRE_OLD_ROOT = "retire the old root"
    SHUT_LAB_DOWN = "shut the lab down"
    CARRY_IN = "carry the command in"
    RUN_COMMAND = "run the command"
    BUILD_KSELFTESTS = "build kselftests"
    RUN_KSELFTEST = "run a kselftest"
    COLLECT = "collect what the kernels said"
    LINES_OF_SOURCE = "find the lines of source"
    FETCH_SOURCE = "fetch the source"
    CONFIGURE_KERNEL = "configure the kernel"
    COMPILE_KERNEL = "compile the kernel"
    LOOK_THROUGH_MEMORY = "look through its memory"
    WRITE_DUMP = "write the dump"
    COPY_IMAGE = "copy the image"
    CONVERT_IMAGE = "convert the image"

    # Steps of an update
    PLAN = "plan"
    CARVE = "carve"
    OFFLINE = "offline"
    LOAD = "load"
    START = "start"
    JOIN = "join"
    HANDOVER = "handover"
    CANARY = "canary"  # a part of the handover
    COMMIT = "commit"
    RETIRE = "retire"

    # A new root, from the start of its CPU on
    KERNEL_STARTUP = "kernel startup"
    USERLAND_STARTUP = "userland startup"

    # The handoff of one VM; COMMIT is also the taker's, for the moment when it makes the VM its own
    EXPECT = "expect"
    PREPARE = "prepare"
    SHOW_DEVICE = "show device"
    START_WAITING_QEMU = "start waiting QEMU"
    VERIFY_TRANSLATIONS = "verify translations"
    SET_MEMORY_MAP = "set memory map"
    SAVE_DEVICE_STATE = "save device state"
    ON_THE_WAY = "device state on its way"
    LOAD_DEVICE_STATE = "load device state"
    WAIT_FOR_COMPLETION = "wait for the completion event"
    CHECK_STATE = "check device state"
    SWITCH_DMA = "switch DMA"
    RESUME = "resume"
    TELL_BRIDGE = "tell the bridge where the guest is"
    PASS_ON = "pass waiting frames on"
    ANNOUNCE = "announce cards"
    END_OLD_QEMU = "end old QEMU"
    RESUME_IN_GIVER = "resume in the giver"

    # The end of the old root, and what the new one takes over
    STOP_SERVICES = "stop services"
    STOP_DISKS = "stop serving the VMs' disks"
    LEAVE_DISKS = "unmount the VMs' disks"
    UNBIND_DRIVERS = "unbind drivers"
    WAIT_FOR_OLD_ROOT = "wait for the old root"
    ADOPT_DEVICES = "adopt devices"
    COME_TO_DISKS = "mount the VMs' disks"
    DISKS_AWAY = "the VMs' disks were away"  # from the one root to the other
    UPLINK_AWAY = "the guests' uplink was away"  # from the one root to the other
    ADOPT_CPU = "adopt CPU"
    VERIFY_MEMORY = "verify memory"
    ZERO_MEMORY = "zero memory"
    ADD_MEMORY = "add memory"


class KexecPhase(StrEnum):
    """The ten phases of kexec + PMEM (the LPC 2021 method), in its order and with its names."""

    VM_SUSPEND = "VM suspend"
    VM_SAVE = "VM save"
    QEMU_SHUTDOWN = "QEMU shutdown"
    USERLAND_SHUTDOWN = "userland shutdown"
    KERNEL_SHUTDOWN = "kernel shutdown"
    KERNEL_STARTUP = "kernel startup"
    USERLAND_STARTUP = "userland startup"
    QEMU_STARTUP = "QEMU startup"
    VM_RESTORE = "VM restore"
    VM_RESUME = "VM resume"


def undo(step: str) -> str:
    """The undo of an update's step."""
    return f"undo {step}"


def build(artifact: str) -> str:
    """The build of one of the lab's artifacts."""
    return f"build {artifact}"


def prepare(contender: str) -> str:
    """The preparation of a bench's contender."""
    return f"prepare {contender}"


def generation(number: int) -> str:
    """One of a row of updates, counted from 1."""
    return f"generation {number}"
