# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the main job in a lab machine and notes what it sees."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import grpc

from multiroot.clocks import difference
from multiroot.demo import device, guests
from multiroot.demo.demo_report import GuestSeen, LaunchSeen, Report, RootSeen, VmSeen
from multiroot.demo.device import DeviceSeen
from multiroot.demo.stage import Stage
from multiroot.errors import BadRequestError, MultirootError, WaitTimeoutError
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab import agents, lab
from multiroot.lab.lab import Lab
from multiroot.lab.machine import card_sockets
from multiroot.lab.recorder import console_text
from multiroot.lab.wire import Sender
from multiroot.net import namespace
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.rpc import client
from multiroot.rpc.progress import ended, follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2 as coordinator
from multiroot.rpc.v1 import coordinator_pb2_grpc, root_pb2, vm_pb2, vm_pb2_grpc
from multiroot.vm import ticks
from multiroot.vm.messages import ticks_from_proto

# Ticks come every 10 ms, a report with every 64th: enough before and after to see several reports.
TICKS_BEFORE = 200
TICKS_AFTER = 300
JOIN_TIMEOUT = 100  # seconds; 15 is usual, 45 on a loaded host
LAUNCHES = 3  # emulated machines hang while they boot now and then, and so do emulated halves of machines
CALL_TIMEOUT = 60.0  # seconds, for calls that only ask; guests under load tick slowly


@dataclass(frozen=True)
class Options:
    """What a person may choose; the rest is in `lab`. `cpus` is a list of CPUs, `carve` a size in bytes,
    `append` more of the new root's command line.
    """

    lab: lab.Options
    new_kernel: str
    vm_memory: int
    vms: int = 1
    cpus: str = ""
    carve: int = 0
    append: str = ""
    keep: bool = False
    card: bool = False  # the VM owns a network card and takes it along


def run(options: Options, phases: Phases, stage: Stage | None = None) -> Report:
    """Build, boot, hand over, look; the machine ends with it unless `keep`. Those at `stage` look on. Raises
    MultirootError.
    """
    stage = stage or Stage()
    if options.vms < 1:
        raise BadRequestError("a demo needs at least one VM", "say --vms 1 or more")
    if options.card and options.vms > 1:
        raise BadRequestError("there is one card, so only one VM can own it", "leave --vms at 1")
    machine = lab.up(options.lab, phases)
    try:
        with ExitStack() as stack:
            old = stack.enter_context(client.connect(machine.agent_address, root="old"))
            new = stack.enter_context(client.connect(machine.agent_address, root="new"))
            stack.enter_context(stage.open(machine))
            return Scenario(machine, options, phases, old, new, stage).play()
    finally:
        if not options.keep:
            with phases.phase(PhaseName.SHUT_LAB_DOWN):
                machine.down()


class Scenario:
    """One run against a lab machine whose old root is up."""

    def __init__(
        self,
        machine: Lab,
        options: Options,
        phases: Phases,
        old: grpc.Channel,
        new: grpc.Channel,
        stage: Stage | None = None,
    ) -> None:
        self._stage = stage or Stage()
        self._machine = machine
        self._options = options
        self._phases = phases
        self._old, self._new = old, new
        self._remote: list[Phase] = []
        self._offset = 0  # TSC clock minus our monotonic clock, ns
        self._card_resets = self._card_interrupts = 0  # before the handoff
        self.launch_failures: list[str] = []

    def play(self) -> Report:
        """The whole job, in order."""
        with ExitStack() as stack:
            return self._play(stack)

    def _play(self, stack: ExitStack) -> Report:
        with translated("the old root's agent"):
            before = agents.status(self._old)
            # The old root's TSC clock minus our monotonic one, ns.
            self._offset = difference(lambda: agents.status(self._old).now_ns, time.monotonic_ns, tries=8).ns
            wanted = guests.definitions(self._options.vms, self._options.vm_memory, card=self._options.card)
            self._stage.step(f"One machine, one kernel: {before.kernel_release}. {_vms_start(len(wanted))}")
            retries = guests.boot(self._old, wanted, TICKS_BEFORE, self._phases)
            sender = self._send_frames(stack, wanted[0].name) if self._options.card else None
            self._stage.step("A second kernel boots beside it, on CPUs and memory of its own.")
            launched = self._launch()
            handed = []
            for definition in wanted:
                self._stage.step(
                    f"{definition.name} crosses to the other kernel. Its memory stays where it is."
                )
                handed.append(self._hand_over(definition.name))
            self._stage.step("It runs in the new kernel, and nobody has reset the machine.")
        with translated("the new root's agent"), self._phases.phase(PhaseName.WATCH_GUESTS):
            vms = tuple(self._look(*each, sender) for each in handed)
            new = agents.status(self._new)
        with translated("the old root's agent"):
            old_after = agents.status(self._old)
        return Report(
            old_root=_root_seen(before),
            old_root_after=_root_seen(old_after),
            new_root=_root_seen(new),
            new_root_number=launched.root,
            resets=self._machine.state.resets(),
            boot_retries=self._machine.state.retries(),
            guest_boot_retries=retries,
            launch_retries=len(self.launch_failures),
            vms=vms,
            launch=self._launch_seen(launched, new),
            phases=self._all_phases(),
            context={
                "lab": {
                    "machine": self._machine.state.machine.name,
                    "accelerator": self._machine.state.machine.accelerator,
                    "agent": self._machine.state.agent_target,
                }
            },
        )

    def _launch(self) -> coordinator.LaunchResult:
        """Bring the new root up. One that is not heard of in time has been taken back, and is tried again."""
        request = coordinator.LaunchRequest(
            kernel=self._options.new_kernel,
            cpus=self._options.cpus,
            carve_size=self._options.carve,
            join_timeout_s=JOIN_TIMEOUT,
            append=self._options.append,
        )
        while True:
            try:
                with translated("the old root's agent"):
                    return self._follow(_coordinator(self._old).Launch(request)).launched
            except WaitTimeoutError as error:
                self.launch_failures.append(str(error))
                if len(self.launch_failures) == LAUNCHES:
                    raise

    def _hand_over(self, name: str) -> tuple[vm_pb2.Vm, coordinator.HandoffResult]:
        vm = _vms(self._old).Get(vm_pb2.GetVmRequest(name=name), timeout=CALL_TIMEOUT)
        request = coordinator.HandoffRequest(names=[name], terms=to_proto(PATIENT))
        return vm, self._follow(_coordinator(self._old).Handoff(request)).handed_off

    def _follow(self, events: Iterable[coordinator.Progress]) -> coordinator.Progress:
        """Take in the phases of a long call; returns its result."""
        return follow(events, self._phases.publish, ended(self._remote.append))

    def _send_frames(self, stack: ExitStack, name: str) -> Sender:
        """Numbered frames to the VM's card from now on; returns once its guest has told of some."""
        sender = stack.enter_context(Sender(card_sockets(self._machine.state.machine, 1)[0]))
        with self._phases.phase(PhaseName.WAIT_FOR_FRAMES):
            device.output_until(self._old, name, 0, guests.BOOT_TIMEOUT)
        self._card_resets = self._machine.state.card_resets()
        self._card_interrupts = self._interrupts("old")
        return sender

    def _look_at_card(self, result: coordinator.HandoffResult, sender: Sender) -> DeviceSeen:
        enough = sender.sent + device.FRAMES_AFTER
        after = device.output_until(self._new, result.name, enough, guests.BOOT_TIMEOUT)
        before = device.output_until(self._old, result.name, enough, CALL_TIMEOUT)
        stopped, resumed = (each - self._offset for each in (result.stopped_ns, result.resumed_ns))
        return device.judge(
            before,
            after,
            result.device,
            in_blackout=sender.between(stopped, resumed),
            resets_before=self._card_resets,
            resets=self._machine.state.card_resets() - self._card_resets,
            interrupts=(self._card_interrupts, self._interrupts("new")),
        )

    def _interrupts(self, root: str) -> int:
        return device.interrupts(self._machine.run(["cat", "/proc/interrupts"], root=root).stdout)

    def _look(self, before: vm_pb2.Vm, result: coordinator.HandoffResult, sender: Sender | None) -> VmSeen:
        name = result.name
        there = ticks_from_proto(agents.ticks(self._new, name, TICKS_AFTER, CALL_TIMEOUT))
        here = ticks_from_proto(agents.ticks(self._old, name, 0, CALL_TIMEOUT))
        now = _vms(self._new).Get(vm_pb2.GetVmRequest(name=name), timeout=CALL_TIMEOUT)
        old_names = [
            vm.definition.name
            for vm in _vms(self._old).List(vm_pb2.ListVmsRequest(), timeout=CALL_TIMEOUT).vms
            if vm.state in ("running", "starting", "frozen")
        ]
        address = now.definition.cards[0].address.partition("/")[0]
        ping = self._machine.run([*namespace.EXEC, "busybox", "ping", "-c", "3", "-W", "2", address])
        return VmSeen(
            name=name,
            ram_bytes=now.definition.ram_bytes,
            ram_bytes_copied=result.ram_bytes_copied,
            device_state_bytes=result.device_state_bytes,
            stopped_ns=result.stopped_ns,
            resumed_ns=result.resumed_ns,
            owner=now.owner,
            epoch_before=before.epoch,
            epoch_after=now.epoch,
            in_old_root_after=name in old_names,
            answers_on_network=ping.returncode == 0,
            guest=judge(here, there),
            device=self._look_at_card(result, sender) if sender else None,
        )

    def _all_phases(self) -> tuple[Phase, ...]:
        ours = [replace(phase, start_ns=phase.start_ns + self._offset) for phase in self._phases.finished]
        return (*ours, *self._remote)

    def _launch_seen(self, launched: coordinator.LaunchResult, new: root_pb2.RootStatus) -> LaunchSeen:
        seconds = {phase.name: (phase.duration_ns or 0) / 1e9 for phase in self._remote}
        marks = {mark.name: mark.at_ns for mark in new.marks}
        first = first_line_ns(
            console_text(self._machine.state.folder, "new"),
            not_before=launched.start_ns - self._offset,
        )

        def since_start(at_ns: int) -> float:
            return round((at_ns - launched.start_ns) / 1e9, 3)

        return LaunchSeen(
            offline=round(seconds["offline"], 3),
            load=round(seconds["load"], 3),
            start=round(seconds["start"], 3),
            first_message=since_start(first + self._offset),
            userspace=since_start(marks["initramfs"]),
            agent_ready=since_start(launched.ready_ns),
        )


def first_line_ns(log: str, not_before: int) -> int:
    """When the first line of a recorder's log came, ns, leaving out what is older than `not_before`."""
    stamps = (int(line.split(" ", 1)[0]) for line in log.split("\n") if line[:1].isdigit())
    found = next((stamp for stamp in stamps if stamp >= not_before), None)
    if found is None:
        raise MultirootError("the new root wrote nothing to its console")
    return found


def judge(here: ticks.Stretch, there: ticks.Stretch) -> GuestSeen:
    """The guest's life over both roots; raises MultirootError when a root saw no tick at all."""
    whole = ticks.continuity(here.then(there).ticks)
    before, after = ticks.continuity(here.ticks), ticks.continuity(there.ticks)
    if whole is None or before is None or after is None or not before.reports or not after.reports:
        raise MultirootError("the guest's ticks were not seen in both roots", "is it the ticker guest?")
    return GuestSeen(
        boot_id_before=before.reports[-1].boot_id,
        boot_id_after=after.reports[-1].boot_id,
        ticks_before=before.last,
        ticks_after=after.last,
        missing=len(whole.missing),
        repeated=len(whole.repeated),
        ram_checked_bytes=after.checked_bytes - before.checked_bytes,
        ram_bad_bytes=whole.bad_bytes,
        largest_gap_ns=_gap_at_handoff(here, there),
        clocks_lost=ticks.clocks_lost(here.ticks, there.ticks),
    )


def _gap_at_handoff(here: ticks.Stretch, there: ticks.Stretch) -> int:
    """Largest distance between neighbouring ticks from the last second in the old root on.

    Earlier gaps are other things: the guest's own boot, CPUs going offline beside it.
    """
    around = [
        tick for tick in here.then(there).ticks if tick.seen_ns >= here.ticks[-1].seen_ns - 1_000_000_000
    ]
    judged = ticks.continuity(around)
    return judged.gap_ns if judged else 0


def _vms_start(count: int) -> str:
    return "A VM starts in it and counts." if count == 1 else f"{count} VMs start in it and count."


def _root_seen(status: root_pb2.RootStatus) -> RootSeen:
    return RootSeen(
        kernel_release=status.kernel_release,
        boot_id=status.boot_id,
        cpus=status.cpus,
        hardware_ids=tuple(status.hardware_ids),
        memory=tuple((range_.start, range_.size, range_.name) for range_ in status.memory),
        uptime_s=round(status.uptime_s, 3),
    )


def _vms(channel: grpc.Channel) -> vm_pb2_grpc.VmServiceStub:
    return vm_pb2_grpc.VmServiceStub(channel)


def _coordinator(channel: grpc.Channel) -> coordinator_pb2_grpc.CoordinatorServiceStub:
    return coordinator_pb2_grpc.CoordinatorServiceStub(channel)
