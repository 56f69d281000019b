# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rest of the project asks of a VMM: the program that runs one VM.

Everything outside of a VMM's own folder speaks this protocol and nothing else. `multiroot/vm/qemu` is the one
implementation that runs guests; the tests have another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from multiroot.arena.allocator import Extent
from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.clocks import Mapped
from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.processes import ProcessId
from multiroot.vm.definition import VmDefinition
from multiroot.vm.guests import GuestImage
from multiroot.vm.notices import Notice


class VmmGoneError(MultirootError):
    """The VMM ended, or the connection to it was lost."""


class VmmStuckError(WaitTimeoutError):
    """The VMM lives and does not answer."""


@dataclass(frozen=True)
class VmmVersion:
    """Which VMM, and its version: device state passes between equal ones only."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class VmmSetup:
    """What a VMM must know of its VM: the guest's RAM is `extent` of the file `arena`.

    `folder` is the VM's own, where the VMM puts its control socket; `log` takes its standard outputs.
    `populate` has all of it mapped when the VMM starts. `to_ns` maps this root's wall clock to the
    machine-wide clock. `heard` is told what happens to the guest. `cpu` is what a CPU that follows the root
    was in the root where the guest started (`VmmFactory.given`), empty for any other.
    """

    definition: VmDefinition
    arena: Path
    extent: Extent
    image: GuestImage
    folder: Path
    log: Path
    to_ns: Mapped
    heard: Callable[[Notice], None] = lambda _: None
    populate: bool = False
    cpu: str = ""


@dataclass(frozen=True)
class CardWires:
    """Open descriptors of one network card, one for each of its queues: of its tap and, where the kernel
    passes the frames itself, of vhost-net.
    """

    taps: tuple[int, ...]
    vhosts: tuple[int, ...] = ()


@dataclass(frozen=True)
class DiskLogin:
    """Who a VMM is to the server of a disk. The password is what is in the file."""

    user: str
    password: Path


@dataclass(frozen=True)
class Wiring:
    """What a VMM is connected with when it starts.

    `serial` is an open socket for the guest's serial port. `cards` are the wires of each network card of
    the definition; none if this root has no network, and then the VM gets no cards. `functions` are the
    addresses in this root of the PCI functions that the VM owns, `disks` the block devices that its disks are
    here, None for one that a server has, `logins` what such servers want of each disk, None if they want
    nothing, `seed` the file with the disk for cloud-init. The VMM itself is started in the body of `inside`:
    what it connects with, it reaches as guests do.
    """

    serial: int
    cards: tuple[CardWires, ...] = ()
    functions: tuple[str, ...] = ()
    disks: tuple[Path | None, ...] = ()
    logins: tuple[DiskLogin | None, ...] = ()
    seed: Path | None = None
    inside: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Saved:
    """A device state that was written; times in ns on the machine-wide clock, sizes in bytes."""

    stopped_ns: int
    saved_ns: int
    sent_bytes: int
    ram_bytes_copied: int


@dataclass(frozen=True)
class Resumed:
    """When the device state had been loaded and when the guest went on, ns on the machine-wide clock."""

    loaded_ns: int
    resumed_ns: int


@dataclass(frozen=True)
class End:
    """Why a VMM ended: `error` is the VMM's own failure with its last words; `fault` is what the guest did;
    `powered_off`: the guest wished to. None of them: it was ended.
    """

    error: str = ""
    fault: str = ""
    powered_off: bool = False


class Vmm(Protocol):
    """One VMM process and the connection to it.

    Calls raise CommandError with the VMM's own words when it refuses, VmmGoneError when it went away, and
    VmmStuckError when it does not answer. Whether it does what it was asked then is open.
    """

    @property
    def name(self) -> str:
        """Which program it is; device state passes between equal ones only."""

    @property
    def version(self) -> str:
        """Its version, known once it has started; device state passes between equal ones only."""

    @property
    def process(self) -> ProcessId | None:
        """Its process, once it has started."""

    @property
    def is_ending(self) -> bool:
        """Whether it has said that it ends by itself; it lets go of what it has then."""

    @property
    def refusing(self) -> tuple[str, ...]:
        """Names in the guest of those of its disks that refuse what it wants; it stands still until they do
        that.
        """

    async def start(self, wiring: Wiring, *, incoming: bool = False) -> None:
        """Start it, and return once it answers. With `incoming` it waits for a device state and the guest
        stays stopped when that has been loaded. Raises ConflictError if this root can't give the VM its CPU.
        """

    async def adopt(self, process: ProcessId) -> None:
        """Connect to one that an earlier agent started; raises ConflictError if that has ended."""

    def urgent(self, urgent: bool) -> None:
        """Run it before other processes of this root, or as usual again."""

    async def resume(self) -> None:
        """Let the guest go on if it stands still."""

    async def pause(self) -> None:
        """Have the guest stand still if it does not yet."""

    async def press_power(self) -> None:
        """Press the power button. What the guest does then is its own affair; `wait_end` tells. Raises
        ConflictError if the machine has none.
        """

    async def reset(self) -> None:
        """Reset the guest's machine; it boots again in the same process."""

    async def announce(self) -> None:
        """Tell the network where the guest's cards are now."""

    def unread(self) -> AbstractContextManager[None]:
        """In the body, nothing that the VMM says is taken in.

        While a guest stands still in a handoff nobody needs it, and taking it in would keep a CPU from what
        the guest waits for.
        """

    async def wait_end(self) -> End:
        """Wait until it has ended and all that it said has been taken in."""

    async def end(self) -> None:
        """End it at once. Afterwards it touches no memory any more."""

    async def hints(self) -> bytes:
        """What makes the loading of this guest's device state faster in another VMM; never needed for it."""

    async def connect(self, fd: int) -> None:
        """Pass it the connected socket that `send` is to write to. The guest runs on."""

    async def send(self) -> None:
        """Have it stop the guest, if that is not paused, and write the device state; returns when it has
        begun.
        """

    async def stopped(self) -> int:
        """Wait until the guest stands still after `send`, and say since when, ns on the machine-wide clock.

        Takes in what the VMM says, even in the body of `unread`.
        """

    async def saved(self) -> Saved:
        """Wait until what `send` began is written; raises CommandError if that failed."""

    async def so_far(self) -> Saved:
        """What is known of it by now; 0 for what is not, which may be everything."""

    async def cancel(self) -> str:
        """Give up what `send` began, wherever that is; the VMM's own words if it failed by itself, else "".

        Nothing happens if there was no `send`. Whether the guest runs afterwards is left open.
        """

    async def take_hints(self, hints: bytes) -> None:
        """Prepare a waiting VMM by what the giver's said in `hints`."""

    async def receive(self, fd: int) -> None:
        """Have a waiting VMM read the device state from this connected socket."""

    def take(self, switch: Switch, until: Step) -> Outcome:
        """Block until the device state has been loaded, and take the steps of `switch` up to `until`. With
        GONE the guest goes on. May be called again for further steps.

        Returns DONE, or DAMAGED, ABORTED or FENCED, which say why not. Raises CommandError if the state was
        not accepted, or if the guest can't go on and has certainly not run here.

        This call and `resume_loaded` are the VMM's part of the blackout. They run in a thread of their own,
        which blocks on a connection of its own: no event loop has to come round.
        """

    def resume_loaded(self) -> Resumed:
        """After the step GONE, block until the guest goes on.

        Raises CommandError if the guest has certainly not run here, VmmGoneError if it may have.
        """

    def stay_loaded(self) -> Resumed:
        """In place of that: the guest was paused, and stays so."""


class VmmFactory(Protocol):
    """Makes VMMs of one kind for VMs of this root."""

    @property
    def name(self) -> str:
        """Which program they are, as in Vmm."""

    def __call__(self, setup: VmmSetup) -> Vmm:
        """A VMM that is not started yet."""

    async def check(self, definition: VmDefinition) -> None:
        """Raises BadRequestError for a machine or a CPU that no VMM of this kind has, in whatever root;
        CommandError if that can't be found out.
        """

    async def written_out(self, cpu: str) -> str:
        """The CPU of a definition in words that mean the same in every root, unless it is to follow the root.

        Raises BadRequestError for one that no VMM of this kind has, CommandError if that can't be found out.
        """

    async def given(self, cpu: str) -> str:
        """The CPU that a guest gets which starts here, in such words, if the definition's follows the root;
        empty for any other. Raises what `written_out` raises.
        """
