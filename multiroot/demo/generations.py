# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel after the other in one lab machine, a VM living through all, and what each has in the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from multiroot import phase_names
from multiroot.coordinator.join import JOIN_TIMEOUT_S
from multiroot.demo import clocks, device, guests
from multiroot.demo.demo_report import GuestSeen
from multiroot.demo.device import Frames
from multiroot.demo.scenario import TICKS_AFTER, TICKS_BEFORE, judge
from multiroot.errors import MultirootError
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab.lab import Lab
from multiroot.lab.machine import card_sockets
from multiroot.lab.wire import Sender
from multiroot.phases import Phase, Phases
from multiroot.rpc import client, successor
from multiroot.rpc.progress import follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import (
    coordinator_pb2,
    coordinator_pb2_grpc,
    root_pb2,
    root_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)
from multiroot.verdict.points import Outcome, Point, point
from multiroot.vm.messages import ticks_from_proto

NAME = "vm1"  # as the demo calls its first VM
ASK_S = 30.0
GUEST_S = 180.0  # seconds a guest may take for some seconds of ticks, on a busy machine
# Counted in the root itself, with nothing but its shell.
_COUNT = """
cat /sys/devices/system/cpu/online
grep -c . /proc/interrupts
multiroot arena show --json
"""
# DMA that the IOMMU has blocked, in the root's own account.
_FAULTS = "from multiroot.device.passthrough import Iommu; print(Iommu().info().faults)"


@dataclass(frozen=True)
class Inventory:
    """What a root has once it is alone. Sizes in bytes; `extents` are those of the arena in use."""

    root: int
    kernel: str
    cpus: str
    hardware_ids: tuple[int, ...]
    memory: int
    devices: int
    interrupts: int
    extents: int
    vms: tuple[str, ...]


@dataclass(frozen=True)
class CardSeen:
    """The VM's card over one update. `frames` is the guest's account from its boot to after the update, which
    holds number `sent`, sent when the new root was alone. The card was reset `resets` times and `faults` DMA
    accesses were blocked. The guest's kernel logged `driver_lines`; `interrupts` came in the new root.
    """

    frames: Frames
    sent: int
    resets: int
    faults: int
    driver_lines: int
    interrupts: int


@dataclass(frozen=True)
class Generation:
    """One update: its inventory afterwards, what the guest lived through, seconds in all and by step."""

    number: int
    seconds: float
    steps: dict[str, float]
    inventory: Inventory
    guest: GuestSeen
    resets: int
    wall_off: float  # seconds by which the new root's wall clock is wrong, beyond what the first one's was
    drift: float  # and those that the old one's monotonic clock lost or won since it had the machine
    card: CardSeen | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Generations:
    """Runs updates in a lab machine whose root is up; MultirootError as soon as something does not hold.

    With `card` the VM owns the machine's network card, and `sender` sends it numbered frames all the time.
    """

    def __init__(self, machine: Lab, vm_memory: int, phases: Phases, *, card: bool = False) -> None:
        self._machine = machine
        self._vm_memory = vm_memory
        self._phases = phases
        self._card = card
        self.sender: Sender | None = None
        self._card_resets = 0  # those by the guest's driver when it set the card up
        self._clocks: clocks.Clocks | None = None
        self._first_clocks: clocks.Clocks | None = None

    def run(self, kernels: Sequence[str], seen: Callable[[Generation], None]) -> list[Generation]:
        """Update to each of `kernels` in turn; `seen` gets each generation as it is done."""
        with ExitStack() as stack:
            first = self._start(stack)
            done: list[Generation] = []
            for number, kernel in enumerate(kernels, 1):
                with self._phases.phase(phase_names.generation(number), kernel=kernel):
                    done.append(self._update(number, kernel))
                seen(done[-1])
                problems = leaks(first, [each.inventory for each in done]) + broken(done[-1])
                if problems:
                    raise MultirootError(f"generation {number}: {'; '.join(problems)}")
            return done

    def _connect(self, root: str | None = None) -> grpc.Channel:
        return client.connect(self._machine.agent_address, root=root)

    def _start(self, stack: ExitStack) -> Inventory:
        with (
            translated("the first root's agent"),
            self._connect() as channel,
        ):
            root_pb2_grpc.RootServiceStub(channel).GetStatus(
                root_pb2.GetStatusRequest(), timeout=ASK_S, wait_for_ready=True
            )
            (definition,) = guests.definitions(1, self._vm_memory, card=self._card)
            guests.boot(channel, [definition], TICKS_BEFORE, self._phases)
            if self._card:
                self._send_frames(stack, channel)
        self._clocks = self._first_clocks = clocks.read(self._machine.run)
        return self._look()

    def _send_frames(self, stack: ExitStack, channel: grpc.Channel) -> None:
        """Numbered frames to the card from now on; returns once the guest has told of some."""
        self.sender = stack.enter_context(Sender(card_sockets(self._machine.state.machine, 1)[0]))
        with self._phases.phase(phase_names.PhaseName.WAIT_FOR_FRAMES):
            device.output_until(channel, NAME, 0, guests.BOOT_TIMEOUT)
        self._card_resets = self._machine.state.card_resets()

    def _update(self, number: int, kernel: str) -> Generation:
        began = time.monotonic()
        steps: list[Phase] = []
        with (
            translated("the old root's agent"),
            self._connect() as channel,
        ):
            # The guest's life in the old root can be read only while that lives: commit first, then retire.
            old_root = self._call(channel, kernel, "commit", steps)
            guest = self._judge()
            drift = self._drift()
            self._call(channel, kernel, "", steps)
        successor.wait(
            self._machine.agent_address,
            old_root,
            steps.append,
            until=successor.COMPLETE,
            timeout_s=400,
            ended=self._machine.state.ending,
        )
        assert self._first_clocks
        self._clocks = clocks.read(self._machine.run)
        return Generation(
            number=number,
            seconds=round(time.monotonic() - began, 3),
            steps=breakdown(steps),
            inventory=self._look(),
            guest=guest,
            resets=self._machine.state.resets(),
            wall_off=round(self._first_clocks.wall_drift(self._clocks), 3),
            drift=drift,
            card=self._look_at_card(self.sender) if self.sender else None,
        )

    def _look_at_card(self, sender: Sender) -> CardSeen:
        sent = sender.sent
        with translated("the guest, watched in the new root,"), self._connect() as channel:
            output = device.output_until(channel, NAME, sent + device.FRAMES_AFTER, guests.BOOT_TIMEOUT)
        accounts = device.parse(output)
        if not accounts:
            raise MultirootError("the guest tells of no frames in the new root")
        return CardSeen(
            frames=accounts[-1],
            sent=sent,
            resets=self._machine.state.card_resets() - self._card_resets,
            faults=int(self._machine.run(["python3", "-c", _FAULTS]).stdout),
            driver_lines=device.foreign_lines(output),
            interrupts=device.interrupts(self._machine.run(["cat", "/proc/interrupts"]).stdout),
        )

    def _call(self, channel: Any, kernel: str, until: str, steps: list[Phase]) -> int:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        old_root: int = stub.GetState(coordinator_pb2.GetStateRequest(), timeout=ASK_S).root
        # Kernels that look for bugs in themselves are slow.
        timeout = round(JOIN_TIMEOUT_S * self._machine.state.machine.slowness)
        launch = coordinator_pb2.LaunchRequest(kernel=kernel, join_timeout_s=timeout)
        request = coordinator_pb2.UpdateRequest(
            launch=launch, until=until, verify=True, terms=to_proto(PATIENT)
        )
        follow(stub.Update(request), self._phases.publish, steps.append)
        return old_root

    def _drift(self) -> float:
        assert self._clocks
        return round(self._clocks.drift(clocks.read(self._machine.run)), 3)

    def _judge(self) -> GuestSeen:
        sides = []
        for root, count in (("new", TICKS_AFTER), ("old", 0)):
            # A guest that was handed over and is silent shows here, as a deadline that passes.
            with translated(f"the guest, watched in the {root} root,"), self._connect(root) as channel:
                request = vm_pb2.GetTicksRequest(name=NAME, wait_count=count)
                answer = vm_pb2_grpc.VmServiceStub(channel).GetTicks(request, timeout=GUEST_S)
                sides.append(ticks_from_proto(answer))
        there, here = sides
        return judge(here, there)

    def _look(self) -> Inventory:
        with self._connect() as channel:
            status = root_pb2_grpc.RootServiceStub(channel).GetStatus(
                root_pb2.GetStatusRequest(), timeout=ASK_S
            )
        counted = self._machine.run(["sh", "-c", _COUNT])
        online, interrupts, *arena = counted.stdout.split("\n")
        return Inventory(
            root=status.root,
            kernel=status.kernel_release,
            cpus=online,
            hardware_ids=tuple(status.hardware_ids),
            memory=sum(item.size for item in status.memory if item.name.startswith("System RAM")),
            devices=len(status.devices),
            interrupts=int(interrupts),
            extents=len(json.loads("\n".join(arena))["extents"]),
            vms=tuple(status.vms),
        )


def breakdown(steps: Sequence[Phase]) -> dict[str, float]:
    """Seconds by name of step; those that come several times (CPUs, pieces of memory) added up."""
    found: dict[str, float] = {}
    for phase in steps:
        if phase.duration_ns is not None:
            found[phase.name] = round(found.get(phase.name, 0.0) + phase.duration_ns / 1e9, 3)
    return found


def points(done: Sequence[Generation], asked: int, failure: str = "") -> list[Point]:
    """A point for each of the `asked` generations as far as they came; `failure` is what ended the
    last one.
    """
    told = [
        point(
            f"generation {each.number} lost nothing",
            not (failure and each.number == len(done) and failure.startswith(f"generation {each.number}:")),
            f"{each.inventory.kernel}, {each.guest.ticks_after} ticks, {each.seconds:.1f} s",
        )
        for each in done
    ]
    if failure and all(each.outcome is Outcome.HELD for each in told):
        told.append(point(f"generation {len(done) + 1} comes up", False, failure))
    skipped = range(len(told) + 1, asked + 1)
    return told + [Point(f"generation {number}", Outcome.SKIPPED, "not reached") for number in skipped]


def leaks(first: Inventory, later: Sequence[Inventory]) -> list[str]:
    """What the last of the later roots is short of, compared with the first of them (and of all)."""
    now, reference = later[-1], later[0]
    problems = []
    if sorted(now.hardware_ids) != sorted(first.hardware_ids):
        problems.append(
            f"CPUs: hardware ids {sorted(now.hardware_ids)}, at first {sorted(first.hardware_ids)}"
        )
    for name in ("memory", "devices", "extents"):
        if getattr(now, name) != getattr(reference, name):
            problems.append(
                f"{name}: {getattr(now, name)}, in the first generation {getattr(reference, name)}"
            )
    # Kernels differ in the interrupts they set up, so only a kernel that was there before tells.
    same = [each.interrupts for each in later if each.kernel == now.kernel]
    if now.interrupts != same[0]:
        problems.append(f"interrupts: {now.interrupts}, the last time with this kernel {same[0]}")
    if now.vms != first.vms:
        problems.append(f"VMs: {now.vms}, at first {first.vms}")
    return problems


def broken(generation: Generation) -> list[str]:
    """What is wrong with the guest or the machine after a generation."""
    guest = generation.guest
    checks = {
        "the machine was reset": generation.resets,
        "ticks are missing": guest.missing,
        "ticks were repeated": guest.repeated,
        "bytes of the guest's memory are bad": guest.ram_bad_bytes,
        "the guest rebooted": int(guest.boot_id_before != guest.boot_id_after),
    }
    if generation.card:
        checks |= _broken_card(generation.card)
    problems = [f"{what}: {count}" for what, count in checks.items() if count]
    if not guest.clocks_right:
        problems.append(f"the guest's clocks are wrong: {guest.clocks_told}")
    for what, seconds in (("wall", generation.wall_off), ("monotonic", generation.drift)):
        if seconds > clocks.TOLERANCE_S:
            problems.append(f"the {what} clock is {seconds} s off")
    return problems


def _broken_card(card: CardSeen) -> dict[str, int]:
    frames = card.frames
    return {
        "frames are lost": frames.lost,
        "frames came twice": frames.again,
        "frames the account does not cover": frames.last - frames.first + 1 - frames.count,
        "frames sent since the update that never came": max(card.sent - frames.last, 0),
        "the card was reset": card.resets,
        "DMA was blocked": card.faults,
        "lines that the guest's driver logged": card.driver_lines,
        "no interrupt of the card in the new root": int(not card.interrupts),
    }
