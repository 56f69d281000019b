# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMs of a root share, and what they ask of its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from multiroot.arena.allocator import larger_lab
from multiroot.arena.arena import Arena
from multiroot.arena.layout import METADATA_SIZE
from multiroot.clocks import Clock
from multiroot.errors import BadRequestError, ConflictError
from multiroot.passthrough.devices import Devices
from multiroot.units import format_size
from multiroot.vm import firmware, iscsi_login, sources
from multiroot.vm.definition import VmDefinition
from multiroot.vm.disk import Disk, LocalFile
from multiroot.vm.disk_content import Content, check_content
from multiroot.vm.guests import GUESTS, GuestImage, check_image, check_kernel, check_ram_for
from multiroot.vm.iscsi_login import Login
from multiroot.vm.kept_files import KeptFiles
from multiroot.vm.pmem import Pmem
from multiroot.vm.process import Urgency
from multiroot.vm.vmm import VmmFactory


class Tap(Protocol):
    """An open tap, a port of the guests' bridge that is not up yet. It vanishes with its last descriptor."""

    @property
    def name(self) -> str: ...

    @property
    def fds(self) -> tuple[int, ...]:
        """One for each queue."""

    def close(self) -> None:
        """This process needs it no more."""


class Network(Protocol):
    """Where a VM's network card is plugged in."""

    async def add_tap(self, vm: str, queues: int = 1) -> Tap: ...

    async def bring_up(self, tap: str) -> None: ...

    def await_lease(self, tap: str, hear: Callable[[str, str], None]) -> None:
        """Once, tell MAC and IPv4 address when a server gives one to the guest behind `tap`."""

    def inside(self) -> AbstractContextManager[None]:
        """In the body, this thread is in the guests' network."""

    def arriving(self, cards: Mapping[str, str]) -> Arrival:
        """Of cards, MAC addresses by tap. Raises MultirootError if the network can't be told."""

    def late_frames(self, cards: Mapping[str, str], root: int, vmm: int) -> LateFrames:
        """Of these cards of process `vmm`, whose guest goes to another root."""


class Arrival(Protocol):
    """Cards whose guest runs here soon. The network hears of that by what the guest sends, too."""

    def tell(self) -> None:
        """It does now. Raises OSError if the network does not take it in."""

    def close(self) -> None:
        """Nobody needs it any more."""


class LateFrames(Protocol):
    """Frames that come for a guest while it stands still in a handoff."""

    def listen(self) -> None:
        """Note what comes from now on."""

    def pass_on(self) -> int:
        """The guest runs elsewhere: send there what it has not got, and say how many frames there were.

        May be called again; each frame is sent once.
        """

    def close(self) -> None:
        """Note nothing any more."""


def _no_files(file: LocalFile) -> None:
    raise BadRequestError(f"this root reaches no files of other roots: {file}")


def nobody_cares() -> None:
    """For a host that nobody watches."""


@dataclass(frozen=True)
class Host:
    """What VMs of this root share. `clock` is the machine-wide one; `network` None gives VMs no card,
    `devices` None no device of their own. `find_disk` says what a disk is here, `look_at_disk` what is in it.
    `variables` keeps what firmware knows of VMs; None: as long as they run. `agent` is this process, for VMs
    that stand still. `open_door` sees to it that VMMs reach a file that a root serves. `changed` is called
    when the state of a VM changes.
    """

    root: int
    arena: Arena
    clock: Clock
    run_dir: Path
    vmm: VmmFactory
    network: Network | None = None
    devices: Devices | None = None
    guests: Path = GUESTS
    find_disk: Callable[[Disk], Pmem | None] = sources.find
    look_at_disk: Callable[[Disk, Pmem | None, Login | None], Content] = sources.look
    variables: firmware.VariableStore | None = None
    open_door: Callable[[LocalFile], None] = _no_files
    changed: Callable[[], None] = nobody_cares
    agent: Urgency = field(default_factory=Urgency)

    @cached_property
    def files(self) -> KeptFiles:
        """What the arena keeps of files that users have given."""
        return KeptFiles(self.arena)

    def check(self, definition: VmDefinition) -> None:
        """Raises BadRequestError if this root lacks what the VM is made of, which is as true while others
        use it.
        """
        self.files.check(definition)
        if not definition.kernel and not definition.boots_a_disk:
            check_image(self.guests, definition.guest)
        firmware.check(definition.firmware)
        for disk in definition.disks:
            with suppress(ConflictError):
                self.find_disk(disk)
        if definition.functions and self.devices is None:
            raise BadRequestError(f"{definition.name} owns a device, and this root has none to give")

    def check_free(self, definition: VmDefinition) -> None:
        """Raises ConflictError if this root uses one of its disks. VMMs reach those that a root serves."""
        for disk in definition.disks:
            self.find_disk(disk)
        self.open_doors(definition)

    def check_start(self, definition: VmDefinition) -> None:
        """Raises BadRequestError unless what the VM starts from is whole, and comes up in its memory."""
        if definition.kernel:
            kernel, initrd = self.own_files(definition)
            check_kernel(kernel, len(initrd), definition.ram_bytes, definition.firmware)
        elif not definition.boots_a_disk:
            check_ram_for(GuestImage.of(self.guests, definition.guest), definition)

    def check_room(self, definition: VmDefinition) -> None:
        """Raises BadRequestError unless its memory would fit into the arena if no other VM were there."""
        if definition.ram_bytes > (room := self.arena.size - METADATA_SIZE):
            raise BadRequestError(
                f"{format_size(definition.ram_bytes)} of memory is more than the arena has",
                f"it has {format_size(room)} for all VMs{larger_lab(definition.ram_bytes, self.arena.size)}",
            )

    def own_files(self, definition: VmDefinition) -> tuple[bytes, bytes]:
        """A VM's own kernel and initrd; raises BadRequestError if one is not there, or damaged."""
        initrd = self.files.read(definition.initrd) if definition.initrd else b""
        return self.files.read(definition.kernel), initrd

    def login(self, disk: Disk) -> Login | None:
        """A disk's user and password, if it has them; raises BadRequestError if they are not there."""
        return iscsi_login.parse(self.files.read(disk.login)) if disk.login else None

    def open_doors(self, definition: VmDefinition) -> None:
        """Have its VMM reach those of its disks that are files which a root serves."""
        for disk in definition.disks:
            if disk.local:
                self.open_door(disk.local)

    def check_servers(self, definition: VmDefinition) -> None:
        """Raises ConflictError or BadRequestError unless this root reaches all servers of its disks."""
        self.open_doors(definition)
        for disk in definition.disks:
            if disk.server:
                sources.reach(disk.server, self.login(disk))

    def check_disks(self, definition: VmDefinition) -> None:
        """Raises BadRequestError or ConflictError unless all disks are there and hold what they are to."""
        for disk in definition.disks:
            check_content(disk, self.look_at_disk(disk, self.find_disk(disk), self.login(disk)))
