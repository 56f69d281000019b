# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays an update in a lab machine under the trace, and judges all that was seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from multiroot.audit import looks, rows
from multiroot.audit.audit_report import Audit
from multiroot.audit.judge import Doorbell, Judge
from multiroot.audit.looks import Look
from multiroot.audit.owners import Owners
from multiroot.audit.rows import Phase, Role, Span
from multiroot.audit.tap import Tap, logical_ids
from multiroot.demo import scenario
from multiroot.demo.demo_report import Report
from multiroot.errors import BadRequestError
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab import lab as labs
from multiroot.lab.lab import Lab
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase as Timed
from multiroot.phases import Phases
from multiroot.plan.planner import Plan
from multiroot.rpc import client, successor
from multiroot.rpc.progress import follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc
from multiroot.verdict.points import of_checks

_PLAN_TIMEOUT = 60.0  # seconds
_RETIRE_TIMEOUT = 400.0  # seconds

# Phases of the demo that begin one of ours, and whether by their start or their end; a launch that failed
# begins again.
_BEGINS = {
    ("plan", False): Phase.LAUNCH,
    ("join", True): Phase.BOTH,
    ("prepare", False): Phase.HANDOFF,
    ("watch the guests go on", False): Phase.BOTH,
}


def run(options: scenario.Options, phases: Phases, *, retire: bool = True) -> Audit:
    """Boot, trace, play, judge; the machine ends with it unless `keep`. Raises MultirootError."""
    machine = labs.up(options.lab, phases)
    try:
        return audit(machine, options, phases, retire=retire)
    finally:
        if not options.keep:
            with phases.phase(PhaseName.SHUT_LAB_DOWN):
                machine.down()


def audit(machine: Lab, options: scenario.Options, phases: Phases, *, retire: bool) -> Audit:
    """Audit an update in a machine that runs and has no new root yet."""
    one = Run(machine, options, phases)
    one.play()
    if retire:
        one.retire()
    return one.audit()


class Run:
    """One audit, from before the launch to the verdict."""

    def __init__(self, machine: Lab, options: scenario.Options, phases: Phases) -> None:
        if machine.state.machine.accelerator != "tcg":
            hint = "KVM keeps LAPIC, IOAPIC, PIC and PIT in the kernel, where no trace sees: --accel tcg"
            raise BadRequestError("an audit needs a lab machine under TCG", hint)
        self._machine = machine
        self._options = replace(options, append=f"{looks.TRACE_FROM_START} {options.append}".strip())
        self._phases = phases
        self._rows = rows.load()
        with phases.phase(PhaseName.LOOK_INTO_OLD_ROOT):
            low = self._low_window()
            self._before = looks.look(machine, Role.OLD.value)
        cpus = machine.state.machine.cpus
        self.owners = Owners(range(cpus), low, logical_ids(machine.state.folder, cpus))
        self._judge = Judge(self._rows, self.owners)
        self._tap = Tap(machine.state.folder, self._judge.take)
        self._demo: Report | None = None
        self.doorbells: tuple[Doorbell, ...] = ()

    def play(self) -> None:
        """Play the demo under the trace: a launch, two roots alive, a handoff."""
        looks.start_msr_trace(self._machine, Role.OLD.value)
        unsubscribe = self._phases.subscribe(self._follow)
        try:
            with ExitStack() as stack:
                address = self._machine.agent_address
                old = stack.enter_context(client.connect(address, root="old"))
                new = stack.enter_context(client.connect(address, root="new"))
                self._judge.begin()
                stack.enter_context(self._tap.open())
                self._demo = scenario.Scenario(self._machine, self._options, self._phases, old, new).play()
        finally:
            unsubscribe()
        with self._phases.phase(PhaseName.LOOK_INTO_BOTH_ROOTS):
            self._take_msrs(Phase.HANDOFF)
            there = {role: looks.look(self._machine, role.value) for role in Role}
        self._compare(there[Role.OLD], there[Role.NEW])
        self.doorbells = looks.doorbells(there[Role.OLD], self._demo.new_root_number)

    def retire(self) -> None:
        """After `play`, under the trace: the old root retires, the new one takes CPUs and devices.

        Where the phase "after" begins is in the trace: see the row that takes over.
        """
        address = self._machine.agent_address
        self._judge.begin()
        self._judge.enter(Phase.RETIRE)
        # No canary: a handoff was under the trace in `play`, and the trace is slow.
        request = coordinator_pb2.UpdateRequest(
            launch=coordinator_pb2.LaunchRequest(kernel=self._options.new_kernel),
            no_canary=True,
            terms=to_proto(PATIENT),
        )
        with self._tap.open(), self._phases.phase(PhaseName.RETIRE_OLD_ROOT):
            with client.connect(address, root="old") as channel, translated("the old root's agent"):
                stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
                old_root = stub.GetState(coordinator_pb2.GetStateRequest(), timeout=_PLAN_TIMEOUT).root
                follow(stub.Update(request), self._phases.publish)
            successor.wait(
                address,
                old_root,
                self._phases.publish,
                timeout_s=_RETIRE_TIMEOUT,
                ended=self._machine.state.ending,
            )
        # The network card is the new root's now, and with it the way of the old one's commands.
        for write in looks.take_msr_trace(self._machine, Role.OLD.value):
            self._judge.take_msr(Role.NEW, Phase.AFTER, write)

    @contextmanager
    def watch(self, phase: Phase) -> Iterator[Judge]:
        """After `play`: judge by itself what happens while the body runs."""
        judge = Judge(self._rows, self.owners, phase)
        judge.begin()
        with Tap(self._machine.state.folder, judge.take).open():
            yield judge

    def _low_window(self) -> Span:
        """Where the new root will start its CPUs: the planner's choice for this launch."""
        options = self._options
        request = coordinator_pb2.LaunchRequest(
            kernel=options.new_kernel, cpus=options.cpus, carve_size=options.carve, append=options.append
        )
        with (
            client.connect(self._machine.agent_address, root="old") as channel,
            translated("the old root's agent"),
        ):
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            answer = stub.Plan(request, timeout=_PLAN_TIMEOUT, wait_for_ready=True)
        low = Plan.from_json(answer.plan_json).low
        return Span(low.base, low.end - 1)

    def _follow(self, timed: Timed) -> None:
        """Phases of the demo become phases of the audit."""
        phase = _BEGINS.get((timed.name, timed.duration_ns is not None))
        if phase is None or not timed.ok:
            return
        self._tap.mark(lambda: self._judge.enter(phase))
        if timed.name == PhaseName.JOIN:
            self._take_msrs(Phase.LAUNCH)

    def _take_msrs(self, phase: Phase) -> None:
        for role in Role:
            for write in looks.take_msr_trace(self._machine, role.value):
                self._judge.take_msr(role, phase, write)

    def _compare(self, old: Look, new: Look) -> None:
        for row in self._rows.row:
            for what in looks.differences(row.compare, self._before, old, new) if row.compare else ():
                self._judge.differ(row, what)

    def audit(self) -> Audit:
        """Every row's verdict, of all that was seen so far."""
        assert self._demo, "play() comes first"
        return Audit(
            rows=self._rows,
            seen=tuple(self._judge.seen()),
            violations=tuple(self._judge.violations(self.doorbells)),
            claims=tuple(of_checks(self._demo.checks())),
            accesses=self._judge.accesses,
            trace_bytes=self._tap.received,
            msr_writes=dict(self._judge.msr_writes),
            rings=self._judge.rings(self.doorbells),
        )
