# SPDX-License-Identifier: GPL-2.0-or-later
"""The one data model from which the terminal and the page draw: the whole machine as one JSON document.

The document is what `decode.to_json` makes of `Facts`. Changes are JSON merge patches of it (RFC 7386), so
whatever changes by itself is in an object with keys, and lists are short and replaced as a whole. Points of
strips, such as a guest's ticks, are not in the document (`events.py`). docs/watch.md describes all of it.

Units, unless a field says otherwise: times are ns on the machine-wide TSC clock, 0 if not known; addresses
are physical; sizes are bytes. A text that is not known is "", a number that is not known and can be 0 is
None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

VERSION = 1


class RootState(StrEnum):
    """What is known of a root."""

    STARTING = "starting"  # its CPU runs, its agent has not answered yet
    ALIVE = "alive"
    UNKNOWN = "unknown"  # nothing has been heard of its agent for a second
    ENDED = "ended"  # retired, or given back
    CRASHED = "crashed"  # ended though nobody wanted it to


class CpuState(StrEnum):
    """Where a CPU is."""

    ONLINE = "online"
    OFFLINE = "offline"  # the root has it and does not use it
    GRANTED = "granted"  # belongs to a new root that has not started it
    PARKED = "parked"  # in the park, between two roots
    ADOPTED = "adopted"  # online in a root that got it from one that ended


class MemoryKind(StrEnum):
    """What a range of physical memory is for."""

    SYSTEM = "system"  # RAM of the root that has it
    CARVE = "carve"  # taken from the old root for the new one
    ARENA = "arena"  # guests' RAM and owner words, which all roots see
    IMAGE = "image"  # the system image or a disk image, which all roots see
    SPARE = "spare"  # RAM that no root has: set aside at boot, or left by a root that has ended


class Stage(StrEnum):
    """How far a handoff is."""

    PREPARING = "preparing"  # the guest runs in the giver
    FROZEN = "frozen"  # it stands still
    DONE = "done"  # it runs in the taker
    STAYED = "stayed"  # it was aborted or failed, and goes on in the giver


@dataclass
class MachineFacts:
    """The one machine that the roots share."""

    name: str = ""
    accelerator: str = ""  # "tcg", "kvm", or "" for hardware
    resets: int | None = None  # of the whole machine; None when nobody can tell
    memory_bytes: int = 0
    cpus: int = 0


@dataclass
class ClockFacts:
    """`ns` is the TSC clock when the document was made; patches carry their own time and leave this alone."""

    ns: int = 0
    wall_offset_ns: int = 0  # ns since 1970 less the TSC clock


@dataclass
class CpuFacts:
    """A CPU; its key is its hardware id, in decimal."""

    root: int = 0  # that has it; 0: none
    number: int | None = None  # that this root gives it
    state: CpuState = CpuState.ONLINE


@dataclass
class RangeFacts:
    """A range of physical memory; its key is its start, in hexadecimal with 0x."""

    start: int = 0
    size: int = 0
    kind: MemoryKind = MemoryKind.SYSTEM
    root: int = 0  # that has it; 0: all see it, or of what is spare, nobody has it
    name: str = ""


@dataclass
class RootFacts:
    """A root; its key is its number in the ledger, in decimal."""

    number: int = 0
    role: str = ""  # "old", "new", or "" for one that has ended
    state: RootState = RootState.UNKNOWN
    kernel_release: str = ""
    image_sha256: str = ""  # of the system image it runs from, "" if not known
    boot_id: str = ""
    booted_ns: int = 0  # uptime is now less this
    heard_ns: int = 0  # when its agent was last heard, if it is not heard now
    agent_version: str = ""
    devices: list[str] = field(default_factory=list)  # PCI functions
    console: list[str] = field(default_factory=list)  # its last lines, oldest first
    splats: list[str] = field(default_factory=list)  # lines of it that tell of a warning, bug or panic


@dataclass
class ExtentFacts:
    """Where a part of a VM's RAM lies."""

    start: int = 0
    size: int = 0


@dataclass
class NoticeFacts:
    """What happened to a VM that no call asked for, or a reset."""

    at_ns: int = 0
    what: str = ""


@dataclass
class TickFacts:
    """The newest tick of a guest that prints some."""

    counter: int = 0
    at_ns: int = 0


@dataclass
class FrameFacts:
    """What a guest has counted of the numbered frames that its own card got, since its start."""

    count: int = 0
    lost: int = 0
    again: int = 0  # came out of order
    at_ns: int = 0


@dataclass
class VmFacts:
    """A VM; its key is its name."""

    # As `vm list` has it: starting, running, paused, incoming, frozen, lost, stopped, failed, unreachable;
    # "unknown" while its owner's agent is silent.
    state: str = "unknown"
    owner: int = 0  # root number in its owner word; 0 for a stopped one
    epoch: int = 0
    memory_bytes: int = 0
    cpus: int = 0
    guest: str = ""  # its guest image, "" for one that boots from a disk
    extents: list[ExtentFacts] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)  # PCI functions that it owns
    addresses: list[str] = field(default_factory=list)  # IPv4, that its cards have been seen to have
    notices: list[NoticeFacts] = field(default_factory=list)  # the newest, oldest first
    ticks: TickFacts | None = None
    frames: FrameFacts | None = None
    error: str = ""


@dataclass
class StepFacts:
    """A step of an update, by the journal. Times are of the wall clock, ns since 1970."""

    edge: str = ""  # "" (not begun), begin, done, undo, undone, failed
    begin_ns: int = 0
    end_ns: int = 0
    undo: bool = True  # whether it can be undone


@dataclass
class UpdateFacts:
    """The update that is under way, or was last.

    `steps` has every step, by its name; `order` names them in order. None of them can be undone from
    `no_return` on.
    """

    root: int = 0  # whose coordinator it is
    state: str = "idle"
    wanted: str = ""  # the step it is to get to; "": it does not run
    order: list[str] = field(default_factory=list)
    steps: dict[str, StepFacts] = field(default_factory=dict)
    no_return: str = "commit"
    next: str = ""  # what is to be done now, a command as a rule
    error: str = ""
    taking_over: str = ""  # how far the new root is with what the old one has left
    taking_over_error: str = ""
    lost: list[str] = field(default_factory=list)  # VMs that were lost with a new root that was ended


@dataclass
class PhaseFacts:
    """A timed step that runs now; its key is made of all three."""

    name: str = ""
    side: str = ""
    start_ns: int = 0
    vm: str = ""  # that it is about


@dataclass
class HandoffFacts:
    """One of the last handoffs; its key is `VM/EPOCH` with the epoch it leads to, or led to."""

    vm: str = ""
    giver: int = 0  # root number
    taker: int = 0
    epoch: int = 0
    stage: Stage = Stage.PREPARING
    began_ns: int = 0
    stopped_ns: int = 0  # last vCPU stop in the giver
    resumed_ns: int = 0  # first vCPU resume in the taker: this less stopped_ns is the VMM's blackout
    gap_ns: int = 0  # the guest's: the largest distance of two ticks around it; 0 if it prints none
    device_state_bytes: int = 0
    ram_bytes_copied: int | None = None
    error: str = ""


@dataclass
class StreamFacts:
    """A strip of points; its key is `KIND/VM`. The points are (time, value) and come as events."""

    kind: str = ""  # ticks, ping, web, frames
    vm: str = ""
    unit: str = ""  # of the values: "count" for ticks and frames, "ns" for answers that take time
    since_ns: int = 0  # when the one connection was made on which they come, 0 if there are many


@dataclass
class Facts:
    """The whole machine. Keys of objects are texts, as JSON has them."""

    version: int = VERSION
    machine: MachineFacts = field(default_factory=MachineFacts)
    clock: ClockFacts = field(default_factory=ClockFacts)
    cpus: dict[str, CpuFacts] = field(default_factory=dict)
    memory: dict[str, RangeFacts] = field(default_factory=dict)
    roots: dict[str, RootFacts] = field(default_factory=dict)
    vms: dict[str, VmFacts] = field(default_factory=dict)
    update: UpdateFacts = field(default_factory=UpdateFacts)
    phases: dict[str, PhaseFacts] = field(default_factory=dict)
    handoffs: dict[str, HandoffFacts] = field(default_factory=dict)
    streams: dict[str, StreamFacts] = field(default_factory=dict)
