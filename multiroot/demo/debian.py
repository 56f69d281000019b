# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job with a guest that people know: Debian from its disk, at work for people outside, all the way
from kernel to kernel.
"""

from __future__ import annotations

import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiroot import phase_names
from multiroot.demo import debian_disks
from multiroot.demo.debian_disks import NAME, GuestDisk
from multiroot.demo.debian_guest import WORK_S, DebianGuest
from multiroot.demo.demo_report import Check
from multiroot.demo.streams import PING_S, Blocks, Counter, Fio, Login, Pings, Sql, Stream, serve_sql
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab import forwards, lab
from multiroot.lab.lab import Lab
from multiroot.net.addresses import OUTSIDE
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.rpc import client, successor
from multiroot.rpc.progress import ended, follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2 as coordinator
from multiroot.rpc.v1 import coordinator_pb2_grpc
from multiroot.verdict.findings import find

SQL = 5432
_UPDATE = "update to "
Streams = tuple[Counter, Sql, Pings, Blocks, Fio]
CLOCK_OFF_S = 0.02  # well below what a guest misses in one handoff
# Runs in the guest: how far its clock is from its root's, ns, as soon as that is little, or after a while.
# Prints nothing where KVM shows no clock. Such a clock is named by its descriptor (clock_gettime(2)).
_CLOCK = f"""
import os, time
try:
    clock = ~os.open("/dev/ptp_kvm", os.O_RDONLY) << 3 | 3
except FileNotFoundError:
    raise SystemExit
until = time.monotonic() + 60
while True:
    before, root, after = time.time_ns(), time.clock_gettime_ns(clock), time.time_ns()
    off = (before + after) // 2 - root
    if abs(off) < {CLOCK_OFF_S * 1e9:.0f} or time.monotonic() > until:
        break
    time.sleep(1)
print(off)
"""
_DISK = re.compile(r"I/O error|blk_update_request|EXT4-fs error")  # no trouble of the kernel's, but of ours


@dataclass(frozen=True)
class Options:
    """`lab` is without disks: they are made here, of the kind `disk`. `kernels` are those of the roots to
    come, an update each. A root with the kernel `visited` takes the VM before that for a while and gives it
    back; "": none does.
    """

    lab: lab.Options
    kernels: tuple[str, ...]
    vm_memory: int
    visited: str = ""
    disk: str = debian_disks.PMEM
    firmware: str = "seabios"
    keep: bool = False


@dataclass(frozen=True)
class Gap:
    """How long what the guest does for others stood at most while `step` went on, s by stream; `blackouts`
    are those of the VMM, ms.
    """

    step: str
    seconds: float
    blackouts: tuple[float, ...]
    gaps: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What was seen."""

    booted_s: float
    gaps: tuple[Gap, ...]
    claims: tuple[Check, ...]
    phases: tuple[Phase, ...]

    @property
    def held(self) -> bool:
        return all(check.held for check in self.claims)

    def checks(self) -> tuple[Check, ...]:
        """Every claim of the demo."""
        return self.claims

    @property
    def away_s(self) -> tuple[tuple[str, float], ...]:
        """In each update, how long the guests had no way out of the machine, and a disk that is a file of a
        root's had nobody who serves it.
        """
        away = [each for each in self.phases if each.name in (PhaseName.UPLINK_AWAY, PhaseName.DISKS_AWAY)]
        return tuple((each.name, round((each.duration_ns or 0) / 1e9, 1)) for each in away)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "held": self.held}


def complaints_in(log: str) -> list[str]:
    """What a guest's kernel complains of in its log, of itself or of its disk."""
    lines = log.splitlines()
    return [each.headline for each in find(lines, NAME)] + [line for line in lines if _DISK.search(line)]


def run(options: Options, phases: Phases) -> Report:
    """Build, boot, hand over, update twice, look; the machine ends with it unless `keep`."""
    with tempfile.TemporaryDirectory(prefix="multiroot-demo-") as folder, ExitStack() as stack:
        disk = debian_disks.MADE_BY[options.disk](Path(folder), phases, stack)
        machine = lab.up(disk.machine(options.lab), phases)
        try:
            with ExitStack() as streams:
                return Scenario(machine, options, disk, phases, Path(folder)).play(streams)
        finally:
            if not options.keep:
                with phases.phase(PhaseName.SHUT_LAB_DOWN):
                    machine.down()


class Scenario:
    """One run in a lab machine whose old root is up."""

    def __init__(self, machine: Lab, options: Options, disk: GuestDisk, phases: Phases, folder: Path) -> None:
        self._machine = machine
        self._options = options
        self._disk = disk
        self._phases = phases
        self._guest = DebianGuest(machine, disk, phases, folder, options.vm_memory, options.firmware)
        self._folder = folder
        self._remote: list[Phase] = []
        self._gaps: list[Gap] = []
        self._pinged: list[tuple[str, int, int]] = []  # each step, and the newest pings before and after it
        self._booted_s = 0.0

    def play(self, stack: ExitStack) -> Report:
        """Boot, begin all streams, update as often as wanted; then end them and count."""
        began = time.monotonic()
        login = self._guest.boot()
        self._booted_s = time.monotonic() - began
        password = secrets.token_urlsafe(16)
        with self._phases.phase(PhaseName.START_STREAMS):
            serve_sql(login, password)
            streams = self._begin(stack, login, password)
            for stream in streams:
                stream.wait_for(1, WORK_S)
        if self._options.visited:
            self._there_and_back(self._options.visited, streams)
        for number, kernel in enumerate(self._options.kernels, 1):
            self._update(number, kernel, streams)
        with self._phases.phase(PhaseName.COUNT):
            claims = self._judge(login, streams)
        return Report(
            round(self._booted_s, 1),
            tuple(self._gaps),
            tuple(claims),
            (*self._phases.finished, *self._remote),
        )

    def _begin(self, stack: ExitStack, login: Login, password: str) -> Streams:
        """All streams; they end with `stack`, also those before one that can't begin."""
        log = self._folder / "streams.log"
        port = forwards.add(self._machine.state, self._guest.address(), SQL, vm=NAME).port
        begin = stack.enter_context
        return (
            begin(Counter(login, log)),
            begin(Sql(port, password)),
            begin(Pings(login, OUTSIDE, log)),
            begin(Blocks(login, log)),
            begin(Fio(login, log)),
        )

    def _there_and_back(self, kernel: str, streams: tuple[Stream, ...]) -> None:
        """To a new root and back, before any update."""
        with self._agent() as channel, translated("the old root's agent"):
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            with self._watched(f"launch of {kernel}", streams):
                self._follow(stub.Launch(coordinator.LaunchRequest(kernel=kernel)))
            for giver, to in (("old", "new"), ("new", "old")):
                with self._watched(f"handoff to the {to} root", streams) as blackouts:
                    blackouts.append(self._hand_over(giver, to))
            with self._watched("release", streams):
                self._follow(stub.Release(coordinator.ReleaseRequest()))

    def _hand_over(self, giver: str, to: str) -> float:
        """The giver is asked. Returns the blackout, ms."""
        with client.connect(self._machine.agent_address, root=giver) as channel:
            request = coordinator.HandoffRequest(names=[NAME], to=to, terms=to_proto(PATIENT))
            events = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Handoff(request)
            return blackout_ms(self._follow(events).handed_off)

    def _update(self, number: int, kernel: str, streams: tuple[Stream, ...]) -> None:
        before = len(self._remote)
        with (
            self._phases.phase(phase_names.generation(number), kernel=kernel),
            self._watched(f"{_UPDATE}{kernel}", streams) as blackouts,
        ):
            with self._agent() as channel, translated("the old root's agent"):
                stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
                old_root = stub.GetState(coordinator.GetStateRequest(), timeout=60).root
                launch = coordinator.LaunchRequest(kernel=kernel)
                request = coordinator.UpdateRequest(launch=launch, terms=to_proto(PATIENT))
                events = stub.Update(request)
                self._follow(events)
            successor.wait(
                self._machine.agent_address,
                old_root,
                self._remote.append,
                until=successor.COMPLETE,
                timeout_s=600,
                ended=self._machine.state.ending,
            )
            blackouts.extend(blackouts_in(self._remote[before:]))

    @contextmanager
    def _watched(self, step: str, streams: tuple[Stream, ...]) -> Iterator[list[float]]:
        """Note how long each stream stood in the body, and that all of them went on after it."""
        began, blackouts = time.monotonic(), list[float]()
        (pings,) = (stream for stream in streams if isinstance(stream, Pings))
        first = pings.newest
        yield blackouts
        seconds = time.monotonic() - began
        for stream in streams:
            stream.wait_for(3 if stream.name != "fio" else 1, WORK_S)
        self._pinged.append((step, first, pings.newest))
        gaps = {
            stream.name: round(stream.longest_gap(began - 1), 3) for stream in streams if stream.name != "fio"
        }
        self._gaps.append(Gap(step, round(seconds, 1), tuple(round(each, 1) for each in blackouts), gaps))

    def _judge(self, login: Login, streams: Streams) -> list[Check]:
        """End everything and count."""
        counter, sql, pings, blocks, fio = streams
        complaints = complaints_in(login.run("sudo dmesg"))
        clock = login.run(f"sudo python3 -c {shlex.quote(_CLOCK)}").strip()
        for stream in streams:
            stream.stop()
        rows, numbers = sql.stored()
        sql.close()
        login.run("sudo systemctl stop postgresql; sync")
        resets = self._machine.state.resets()
        self._guest.power_off(login)
        return [
            Check(
                "the SSH session is still open",
                not counter.broken,
                counter.broken or f"{counter.count} lines",
            ),
            Check(
                "the SQL connection is still open", not sql.broken, sql.broken or f"{sql.count} transactions"
            ),
            Check(
                "every acknowledged transaction is there once",
                rows - numbers in (0, 1) and numbers == sql.acknowledged,
                f"{sql.acknowledged} acknowledged, {numbers} there, {rows} rows",
            ),
            Check(
                "every block came back from the disk as it was written",
                not blocks.broken,
                blocks.broken or f"{blocks.count} blocks",
            ),
            Check(
                "fio read back what it wrote",
                not fio.broken and fio.count > 0,
                fio.broken or f"{fio.count} rounds",
            ),
            *self._judge_pings(pings),
            Check("the guest's kernel has no complaint", not complaints, "; ".join(complaints) or "none"),
            Check("the file system is clean", *self._fsck()),
            *judge_clock(clock),
            Check("no reset of the machine", resets == 0, f"{resets} resets"),
        ]

    def _judge_pings(self, pings: Pings) -> list[Check]:
        """While the old root's card is not yet the new root's, nobody passes a ping on."""
        lost = {step: pings.lost(first, last) for step, first, last in self._pinged}
        away = {step: each for step, each in lost.items() if step.startswith(_UPDATE)}
        here = sum(map(len, pings.lost())) - sum(len(each) for ranges in away.values() for each in ranges)
        seconds = [f"{sum(map(len, ranges)) * PING_S:.2f} s" for ranges in away.values()]
        return [
            Check(
                "no ping was lost but in an update", not here, f"{len(pings.answers)} answered, {here} lost"
            ),
            Check(
                "in an update pings were lost once at most, while the card changed roots",
                all(len(ranges) <= 1 for ranges in away.values()),
                ", ".join(seconds) or "no update",
            ),
        ]

    def _fsck(self) -> tuple[bool, str]:
        """What e2fsck says of the disk, which nobody writes to any more."""
        with self._agent() as channel, translated("the root's agent"):
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            root = stub.GetState(coordinator.GetStateRequest(), timeout=60).root
        return self._disk.check(self._machine, str(root))

    def _agent(self) -> Any:
        return client.connect(self._machine.agent_address)

    def _follow(self, events: Any) -> coordinator.Progress:
        return follow(events, self._phases.publish, ended(self._remote.append))


def judge_clock(off_ns: str) -> list[Check]:
    """Nothing where KVM shows no clock, and the guest can't know what it has missed."""
    if not off_ns:
        return []
    off = int(off_ns) / 1e9
    return [Check("the guest's clock is its root's", abs(off) < CLOCK_OFF_S, f"{off * 1000:+.3f} ms")]


def blackout_ms(result: coordinator.HandoffResult) -> float:
    """How long the VMM stood still."""
    return (result.resumed_ns - result.stopped_ns) / 1e6


def blackouts_in(phases: Iterable[Phase]) -> list[float]:
    """How long the VMM stood still in the one handoff that these are of, ms; nothing if they are of none."""
    still = [each for each in phases if each.blackout and each.attrs.get("vm") == NAME]
    if not still:
        return []
    return [(max(each.end_ns or 0 for each in still) - min(each.start_ns for each in still)) / 1e6]
