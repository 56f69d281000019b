# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM in one root: its VMM, its console keeper, its place in the arena."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path

from multiroot.arena.arena import Entry, OwnerWord
from multiroot.arena.layout import Owner
from multiroot.clocks import wall_clock
from multiroot.errors import CommandError, ConflictError
from multiroot.net.vhost import open_vhost
from multiroot.processes import ProcessId
from multiroot.vm import console_keeper, firmware, seed
from multiroot.vm.definition import VmDefinition
from multiroot.vm.disk import name_in_guest
from multiroot.vm.folder import VmFolder, VmRecord
from multiroot.vm.guests import GuestImage
from multiroot.vm.host import Host
from multiroot.vm.notices import Notice, all_of, newest
from multiroot.vm.said import Said
from multiroot.vm.server_watch import ServerWatch
from multiroot.vm.vmm import CardWires, DiskLogin, VmmGoneError, VmmSetup, VmmStuckError, Wiring

log = logging.getLogger(__name__)

PATIENCE_S = 10  # for a VMM that must answer, before others are attended to


class VmState(StrEnum):
    """As in vm.proto. HANDED: another root runs it, and only its past is known here. LOST: so it was until
    that root ended. STOPPED: nobody runs it, and it has no memory.
    """

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    INCOMING = "incoming"
    FROZEN = "frozen"
    HANDED = "handed"
    LOST = "lost"
    STOPPED = "stopped"
    FAILED = "failed"


ACTIVE = (VmState.STARTING, VmState.RUNNING, VmState.PAUSED, VmState.INCOMING, VmState.FROZEN)
LIVE = (VmState.RUNNING, VmState.PAUSED)  # here, and nobody else's business


class Instance:
    """A VM whose VMM was started or adopted here."""

    def __init__(
        self,
        host: Host,
        definition: VmDefinition,
        entry: Entry,
        powered_off: Callable[[Instance], None] = lambda _: None,
        cpu: str = "",
    ) -> None:
        """`powered_off` is told when its guest has done so by itself, and nothing else is done with it. `cpu`
        is as in VmmSetup.
        """
        self.host = host
        self._powered_off = powered_off
        self.definition = definition
        self.cpu = cpu
        self.entry = entry
        self.owner = entry.owner
        self.word = OwnerWord(host.arena.memory, entry)
        self._state = VmState.STARTING
        self.error = ""
        self.paused = False  # by a user, wherever it goes
        self.untouched = False  # it came here paused and has not run since
        self.folder = VmFolder(host.run_dir, definition.name)
        self._said = Said(self.folder.console_record, host.clock)
        self._image = GuestImage.of(host.guests, definition.guest)
        if definition.kernel:
            self._image = GuestImage.of_user(definition, self.folder.path)
        setup = VmmSetup(
            definition,
            host.arena.path,
            entry.extent,
            self._image,
            self.folder.path,
            self.folder.vmm_log,
            wall_clock(host.clock),
            self._hear,
            populate=host.arena.populates,
            cpu=cpu,
        )
        self.vmm = host.vmm(setup)
        self.taps: tuple[str, ...] = ()
        self.heard: tuple[Notice, ...] = ()  # of the VMM and of servers, here and in roots before
        self.stations: dict[str, str] = {}  # IPv4 addresses that the guest uses, by MAC address
        self.functions: tuple[str, ...] = ()  # addresses in this root of those it owns
        self._busy = ""
        self._off = False  # the guest has powered off, and nobody was told yet
        self._giver: Owner | None = None  # while it is incoming
        self._watch: asyncio.Task[None] | None = None
        self._unanswered: asyncio.Task[None] | None = None
        servers = {disk.server for disk in definition.disks if disk.server}
        self._servers = ServerWatch(servers, self._connected, self._note)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def state(self) -> VmState:
        return self._state

    @state.setter
    def state(self, state: VmState) -> None:
        self._state = state
        self.host.changed()

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What has happened to it, by all who tell of it."""
        return all_of(self.heard, self._said.notices())

    def _connected(self) -> ProcessId | None:
        """Its VMM, as long as that is to have connections to servers of disks."""
        return self.vmm.process if self.active and not self.vmm.is_ending else None

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Its disks whose server is away, and those that refuse what the guest wants."""
        refusing = {
            disk.source
            for number, disk in enumerate(self.definition.disks)
            if name_in_guest(number) in self.vmm.refusing
        }
        return tuple(sorted({*self._servers.away, *refusing}))

    async def check_servers(self) -> None:
        """Raises ConflictError if a disk's server is away: a VMM that is to stop its guest then waits for it,
        and the guest would stand still as long.
        """
        await self._servers.look()
        if self.waits_for:
            raise ConflictError(
                f"{self.name} waits for the server of its disk {self.waits_for[0]}",
                f"when that is back, `multiroot vm show {self.name}` says so",
            )

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def is_busy(self) -> bool:
        """Whether an operation is under way."""
        return bool(self._busy)

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Keep other operations off; raises ConflictError if one is under way."""
        if self._busy:
            raise ConflictError(f"{self.name} is just being {self._busy}")
        self._busy = doing
        try:
            yield
        finally:
            self._busy = ""
            self._tell_if_off()

    def _tell_if_off(self) -> None:
        """Whoever is at work with it goes first: it may still be handed over."""
        if self._off and not self._busy:
            self._off = False
            self._powered_off(self)

    async def start(self, *, giver: Owner | None = None) -> None:
        """Start the VMM and wait until it answers; with `giver` it awaits the state of that owner's VM.

        Raises CommandError with the VMM's own words if it does not start; nothing is left then.
        """
        self.folder.make()
        try:
            await self._spawn(incoming=giver is not None)
        except ConflictError:
            await self.discard()
            raise
        except (VmmGoneError, VmmStuckError, CommandError) as error:
            words = self.folder.last_words() or str(error)
            await self.discard()
            raise CommandError(f"{self.vmm.name} did not start {self.name}: {words}") from error
        except BaseException:  # cancelled, too: nobody else knows of this VMM yet
            await self.discard()
            raise
        self._giver = giver
        self._write()
        self._begin_to_watch()
        self.state = VmState.INCOMING if giver else VmState.RUNNING
        if not giver:
            await self.bring_up_taps()

    def wait_for(self, giver: Owner) -> None:
        """Await the state of that owner's VM with a VMM that was started to wait for it before."""
        self._giver = giver
        self._write()

    async def adopt(self, record: VmRecord) -> None:
        """Take over an earlier agent's VMM; raises ConflictError or VmmGoneError if it is gone."""
        if record.vmm != self.vmm.name:
            raise ConflictError(f"{self.name} is run by {record.vmm}, this agent knows {self.vmm.name}")
        self.taps = record.taps
        self.heard = record.notices
        self.stations = record.stations
        self.paused, self.untouched = record.paused, record.untouched
        self.host.open_doors(self.definition)
        await self.vmm.adopt(record.process)
        self.vmm.urgent(False)  # that agent may have ended in the middle of a handoff
        self._await_addresses()
        self._begin_to_watch()

    def _begin_to_watch(self) -> None:
        self._watch = asyncio.create_task(self._watch_end())
        # While it is handed over, nothing is to take time from that.
        self._servers.begin(lambda: self.state is VmState.RUNNING and not self.is_busy)

    async def bring_up_taps(self) -> None:
        """Let its cards take part in the guests' network."""
        network = self.host.network
        for tap in self.taps if network else ():
            assert network
            await network.bring_up(tap)
        self._await_addresses()

    @property
    def cards(self) -> dict[str, str]:
        """MAC addresses of its cards by their taps; none if this root has no network."""
        return {tap: card.mac for tap, card in zip(self.taps, self.definition.cards, strict=bool(self.taps))}

    def _await_addresses(self) -> None:
        """Note what a server gives its cards, as long as that is not known."""
        if not (network := self.host.network):
            return
        for card, tap in zip(self.definition.cards, self.taps, strict=True):
            if not card.address and card.mac not in self.stations:
                network.await_lease(tap, self.seen)

    def keep(self) -> None:
        """Note that this VM is no longer incoming but ours."""
        self._giver = None
        self._write()

    def hurry(self, urgent: bool) -> None:
        """Before the guest stands still for a handoff: its VMM and this agent first. After it: as usual."""
        self.vmm.urgent(urgent)
        self.host.agent.need(self.name, urgent)

    async def resume(self) -> None:
        """Let the guest go on if it is stopped, but for one that is paused; only the owner may call this."""
        if self.paused:
            await self.vmm.pause()
        else:
            await self.vmm.resume()
        self.state = self.live_state

    @property
    def live_state(self) -> VmState:
        """What it is while it is here and all is well."""
        return VmState.PAUSED if self.paused else VmState.RUNNING

    async def set_paused(self, paused: bool) -> None:
        """Have the guest stand still, or go on, wherever it goes and whoever comes after this agent."""
        before, self.paused = self.paused, paused
        try:
            self._write()
            await self.resume()
            if self.untouched and not paused:
                self.untouched = False
                self._write()
        except BaseException:
            self.paused = before
            self._write()
            raise

    @property
    def is_stuck(self) -> bool:
        """Whether its VMM has yet to answer what it was asked by `patiently`."""
        return self._unanswered is not None and not self._unanswered.done()

    async def patiently(self, ask: Callable[[], Awaitable[None]]) -> bool:
        """Do what asks the VMM something that must be, and be done once, however long its answer takes.

        False if there was none within PATIENCE_S. Then that goes on by itself, again and again if need be,
        until the VMM answers or ends.
        """
        self._unanswered = asyncio.create_task(self.insist(ask))
        done, _ = await asyncio.wait({self._unanswered}, timeout=PATIENCE_S)
        if done:
            self._unanswered.result()
            return True
        log.error("the VMM of %s does not answer; nothing is done with it before it does", self.name)
        return False

    async def insist(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Do that again and again until the VMM answers, or ends."""
        while True:
            try:
                return await ask()
            except VmmStuckError as error:
                log.error("%s", error)

    async def ended(self) -> None:
        """Wait until the VMM has ended by itself and `state` and `error` tell why."""
        if self._watch:
            await asyncio.wait({self._watch})

    async def end(self, state: VmState) -> None:
        """End the VMM for good; what the console saw is kept."""
        self.state = state
        await self.vmm.end()
        self._keep_variables()

    async def fail(self) -> None:
        """End a VMM that does not answer any more, if it has not ended already."""
        if self._watch:
            await self.vmm.end()
            await self._watch

    async def discard(self) -> None:
        """End the VMM and forget all about the VM; the arena is not touched."""
        await self.end(VmState.STOPPED)
        self.folder.remove()

    def _write(self) -> None:
        """By what is written, an agent that comes after this one finds the VM."""
        vmm = self.vmm
        assert vmm.process is not None
        self.folder.write(
            VmRecord(
                self.definition,
                vmm.name,
                vmm.version,
                vmm.process,
                self.taps,
                self._giver,
                self.heard,
                self.stations,
                self.paused,
                self.untouched,
                self.cpu,
            )
        )

    def seen(self, mac: str, address: str) -> None:
        """Whoever has that card, if it is this VM's, uses this IPv4 address."""
        mine = any(card.mac == mac for card in self.definition.cards)
        if mine and self._watch and self.active and self.stations.get(mac) != address:
            self.stations[mac] = address
            self._write()

    def _hear(self, notice: Notice) -> None:
        log.warning("%s: %s", self.name, notice.what)
        self.heard = newest((*self.heard, notice))
        if self._watch and self.active:
            self._write()

    async def _spawn(self, *, incoming: bool) -> None:
        host = self.host
        with ExitStack() as stack:
            serial, keeper_serial = (stack.enter_context(end) for end in socket.socketpair())
            cards = await self._plug_in(stack)
            console_keeper.spawn(self.folder, keeper_serial, stack)
            found = [host.find_disk(disk) for disk in self.definition.disks]
            disks = tuple(each.node if each else None for each in found)
            firmware.provide(self.definition, self.folder.path, host.variables)
            if self.definition.kernel:
                await asyncio.to_thread(self._provide_files)
            logins = await asyncio.to_thread(self._provide_logins)
            inside = host.network.inside if host.network else nullcontext
            wiring = Wiring(serial.fileno(), cards, self.functions, disks, logins, self._make_seed(), inside)
            await self.vmm.start(wiring, incoming=incoming)

    async def _plug_in(self, stack: ExitStack) -> tuple[CardWires, ...]:
        """Its cards' wires, which are open until `stack` ends; none if this root has no network."""
        network = self.host.network
        names: list[str] = []
        wires: list[CardWires] = []
        for card in self.definition.cards if network else ():
            assert network
            tap = await network.add_tap(self.name, card.queues)
            stack.callback(tap.close)
            vhosts = open_vhost(card.queues)
            for fd in vhosts:
                stack.callback(os.close, fd)
            names.append(tap.name)
            wires.append(CardWires(tap.fds, vhosts))
        self.taps = tuple(names)
        return tuple(wires)

    def _provide_files(self) -> None:
        """Its own kernel and initrd, for the VMM, which reads them once."""
        self._image.provide(*self.host.own_files(self.definition))

    def _provide_logins(self) -> tuple[DiskLogin | None, ...]:
        """Of its disks, with passwords in files of its folder, which is root's alone."""
        found = [self.host.login(disk) for disk in self.definition.disks]
        return tuple(
            self.folder.keep_login(number, login) if login else None for number, login in enumerate(found)
        )

    def _make_seed(self) -> Path | None:
        """The same disk in every root."""
        if not self.definition.user_data:
            return None
        self.folder.seed.write_bytes(seed.image(self.name, self.definition.user_data))
        return self.folder.seed

    async def _watch_end(self) -> None:
        end = await self.vmm.wait_end()
        if not self.active:
            return
        self._keep_variables()
        self.error = end.error
        if end.fault:
            self.error = f"{end.fault}; its last words: {self.folder.guest_words() or 'none'}"
        self.state = VmState.FAILED if self.error else VmState.STOPPED
        self._off = end.powered_off
        self._tell_if_off()

    def _keep_variables(self) -> None:
        """What the firmware has written, if the guest ran here."""
        if self._giver is None:
            firmware.keep(self.definition, self.folder.path, self.host.variables)

    def _note(self, what: str) -> None:
        self._hear(Notice(self.host.clock(), what))
