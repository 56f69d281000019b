# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays one trial in a lab machine and notes what it sees.

What a kernel does wrong is an observation: the trial goes on to the judging. What keeps us from trying it at
all, be it a kernel that is not built or a lab that does not start, is raised.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

from multiroot.coordinator.join import JOIN_TIMEOUT_S
from multiroot.demo import guests
from multiroot.demo.scenario import judge
from multiroot.errors import (
    BadRequestError,
    ConflictError,
    MultirootError,
    PeerLostError,
    StrangerError,
    WaitTimeoutError,
)
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab import execution, lab, recipes, state
from multiroot.lab.agents import Agents
from multiroot.lab.boot import BootError
from multiroot.lab.build import Built
from multiroot.lab.execution import Channel
from multiroot.lab.guests import COMMANDS, TICKER, image
from multiroot.lab.lab import Lab
from multiroot.lab.machine import Machine
from multiroot.lab.watchdog import Limits
from multiroot.net.addresses import guest_address
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.roles import OTHER
from multiroot.rpc import client, successor
from multiroot.rpc.progress import follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2 as coordinator
from multiroot.rpc.v1 import coordinator_pb2_grpc
from multiroot.vm.messages import ticks_from_proto
from multiroot.workbench import carry, kselftest_run
from multiroot.workbench.carry import Streams
from multiroot.workbench.evidence import GUEST, GUEST_BOOT, Evidence
from multiroot.workbench.reached import (
    AFTER_NEXT,
    AFTER_UPDATE,
    NEW,
    OLD,
    THE_GUEST,
    Reached,
    Started,
    told_there,
)
from multiroot.workbench.trial_report import Command, Step, Trial
from multiroot.workbench.wanted import GUEST_PATIENCE_S, PATIENCE_S, VM_MEMORY, Until, Wanted, Where
from multiroot.workbench.watch import GuestLostError, RootLostError, Watch

# Guests report with every 64th tick, and both roots have to see a report.
TICKS = 70
# A kernel that has spoken and then says nothing for so long hangs; before, it is being unpacked.
BOOT_LIMITS = Limits(silence=60.0, total=600.0, spoken=25.0)
UPDATE_S = 400.0
ASK_S = 30.0
# These say that the request was wrong or something else is in the way: of the kernel they say nothing.
_OURS = (BadRequestError, ConflictError, StrangerError)

BOOT, LAUNCH, THERE = (
    "the old root boots",
    "the new root comes up",
    "the guest moves",
)
BACK, RELEASE = "the guest comes back", "the new root is released"
UPDATE, NEXT = "the update ends with the new root alone", "the next update does, too"
LIVE = "the roots and the guest live while the command runs"


class _Bad(Exception):
    """A step did not hold: the rest is not taken."""


def planned(wanted: Wanted) -> tuple[str, ...]:
    """The steps that a trial takes, in their order."""
    if not (wanted.command or wanted.suites):
        return BOOT, GUEST_BOOT, LAUNCH, THERE, BACK, RELEASE, UPDATE, NEXT
    guest = (GUEST_BOOT,) if wanted.guest_takes_commands else ()
    steps = {
        Until.BOOT: (BOOT, *guest),
        Until.LAUNCH: (BOOT, *guest, LAUNCH),
        Until.HANDOVER: (BOOT, GUEST_BOOT, LAUNCH, THERE),
        Until.UPDATE: (BOOT, GUEST_BOOT, UPDATE),
    }[wanted.until]
    return (*steps, LIVE)


def run(wanted: Wanted, phases: Phases, streams: Streams) -> Trial:
    """One trial; the machine ends with it unless `keep`. Raises MultirootError for what nobody can try."""
    machine, built = lab.prepare(wanted.lab, phases)
    trial = Trial(planned(wanted))
    for where in wanted.places:
        trial.suites += kselftest_run.claims(wanted.suites, where.value)
    player = Player(wanted, trial, phases, streams, machine, built)
    try:
        with suppress(_Bad):
            player.play()
        player.evidence.collect()
    finally:
        if not wanted.keep:
            player.down()
        if wanted.logs:
            player.evidence.keep_logs(wanted.logs)
        trial.phases = (*phases.finished, *player.remote)
    return trial


@dataclass
class Player:
    """One trial on its way."""

    wanted: Wanted
    trial: Trial
    phases: Phases
    streams: Streams
    machine: Machine
    built: Built
    reached: Reached = field(default_factory=Reached)
    remote: list[Phase] = field(default_factory=list)  # phases of agents
    token: str = field(default_factory=lambda: secrets.token_hex(16))  # of a guest that runs commands

    def play(self) -> None:
        """All steps; _Bad after one that did not hold."""
        self._step(BOOT, self._boot)
        machine = self._lab
        assert self.reached.first
        self.evidence.identify(self.reached.first, "old")
        patience_s = self.wanted.patience_s or PATIENCE_S * self._slowness
        with Watch(machine, patience_s) as watch, Agents(machine.agent_address) as agents:
            watch.ask("old")
            if NEXT in self.trial.planned:
                self._standard(watch, agents)
                return
            if GUEST_BOOT in self.trial.planned:
                self._step(GUEST_BOOT, lambda: self._start_guest(watch, agents))
            if self.wanted.until in (Until.LAUNCH, Until.HANDOVER):
                self._step(LAUNCH, lambda: self._launch(watch, agents))
            if self.wanted.until is Until.HANDOVER:
                self._step(THERE, lambda: self._hand_over(agents, "new"))
            if self.wanted.until is Until.UPDATE:
                self._step(UPDATE, lambda: self._update(watch, self.wanted.new, NEW))
            self._step(LIVE, partial(self._kselftests if self.wanted.suites else self._command, watch))

    def _heard(self, phase: Phase) -> None:
        """Show a phase of an agent, and keep it when it has ended."""
        self.phases.publish(phase)
        if phase.duration_ns is not None:
            self.remote.append(phase)

    @property
    def _lab(self) -> Lab:
        assert self.reached.lab
        return self.reached.lab

    @property
    def _slowness(self) -> float:
        """How many times as long as usual roots and guests of these kernels may take."""
        names = filter(None, (self.wanted.lab.kernel, self.wanted.new, self.wanted.guest))
        return max(self.built.kernels[lab.kernel_name(name)].slowness for name in names)

    @property
    def _join_timeout_s(self) -> int:
        return self.wanted.join_timeout_s or round(JOIN_TIMEOUT_S * self._slowness)

    @property
    def evidence(self) -> Evidence:
        """What can be known of the trial by now."""
        return Evidence(self.wanted, self.trial, self.phases, self.machine, self.built, self.reached)

    def _step(self, name: str, take: Callable[[], str]) -> None:
        """Take one and note what came of it; what is our fault is raised."""
        began = time.monotonic()
        try:
            seen, held = take(), True
        except _OURS:
            raise
        except MultirootError as error:
            seen, held = str(error), False
            self.reached.lost = isinstance(error, RootLostError)
            self.reached.guest_lost = isinstance(error, GuestLostError)
        self.trial.steps.append(Step(name, held, seen, round(time.monotonic() - began, 3)))
        if not held:
            raise _Bad

    def _boot(self) -> str:
        attempts = 1 + self.wanted.retries
        old = self.reached.start(Started(OLD, "old", self.machine.kernel))
        try:
            started = lab.start(self.machine, self.built, self.phases, attempts=attempts, limits=BOOT_LIMITS)
        except BootError as error:
            if state.load(self.machine.name).attempts[-1].final:
                raise BadRequestError(error.message, error.hint) from error
            raise
        self.reached.lab, self.reached.first = started, old
        return f"{self.machine.release}, attempt {len(started.state.attempts)}"

    def _start_guest(self, watch: Watch, agents: Agents) -> str:
        (definition,) = guests.definitions(1, VM_MEMORY)
        kernel = lab.kernel_name(self.wanted.guest) if self.wanted.guest else ""
        self.reached.start(Started(THE_GUEST, GUEST, kernel or recipes.kernels().guest))
        definition.guest = image(TICKER, kernel)
        if self.wanted.guest_takes_commands:
            definition.guest, definition.append = image(COMMANDS, kernel), f"{COMMANDS}.token={self.token}"
        # "quiet" is on its command line; then warnings are not heard.
        definition.append += f" loglevel=5 {self.wanted.append_guest}".rstrip()
        with self.phases.phase(PhaseName.START_VMS):
            agents.run(definition)
        watch.heed(GUEST)
        if not self.wanted.guest_takes_commands:
            return f"{GUEST} is started"
        with self.phases.phase(PhaseName.WAIT_FOR_GUESTS):
            self._await_guest()
        self.reached.reach_guest = self._reach_guest
        return f"{GUEST} takes commands"

    def _await_guest(self) -> None:
        """Until the guest takes commands. The watch notices a root that dies meanwhile."""
        until = time.monotonic() + guests.BOOT_TIMEOUT
        while True:
            try:
                with closing(self._reach_guest()) as channel:
                    execution.run(channel, ["true"], timeout=ASK_S)
                return
            except (PeerLostError, WaitTimeoutError) as error:
                if time.monotonic() > until:
                    raise WaitTimeoutError(f"the guest did not boot: {error.message}", error.hint) from error

    def _reach_guest(self) -> Channel:
        return self._lab.guest_channel(guest_address(1), self.token)

    def _launch(self, watch: Watch, agents: Agents) -> str:
        name = lab.kernel_name(self.wanted.new)
        request = coordinator.LaunchRequest(
            kernel=name,
            append=self.wanted.append_new,
            join_timeout_s=self._join_timeout_s,
            # Who looks around afterwards wants to see what did not come up, too.
            keep=self.wanted.keep and not self.wanted.retries,
        )
        new = self._starts(NEW, name)
        launched = None
        for attempt in range(1, self.wanted.retries + 2):
            try:
                launched = agents.launch_as(request, self._heard)
                break
            except MultirootError:
                if attempt > self.wanted.retries:
                    raise
        assert launched
        self.reached.second = new
        watch.ask("new", new.console, NEW)
        self.evidence.identify(new, "new")
        seconds = (launched.ready_ns - launched.start_ns) / 1e9
        return f"root {launched.root} joined {seconds:.1f} s after its CPU was started, attempt {attempt}"

    def _starts(self, called: str, kernel: str) -> Started:
        """Note that the root that answers is about to start another."""
        assert self.reached.first
        console = OTHER[self.reached.first.console]
        return self.reached.start(Started(called, console, kernel, told_there(self.machine.state, console)))

    def _hand_over(self, agents: Agents, to: str) -> str:
        giver = OTHER[to]
        if self.wanted.guest_takes_commands:
            ((result, _),) = agents.hand_over([GUEST], to, self._heard)
            return f"it stood still for {(result.resumed_ns - result.stopped_ns) / 1e6:.1f} ms"
        with self.phases.phase(PhaseName.WAIT_FOR_GUESTS):
            agents.ticks(GUEST, giver, TICKS)
        ((result, _),) = agents.hand_over([GUEST], to, self._heard)
        with self.phases.phase(PhaseName.WATCH_GUESTS):
            there = ticks_from_proto(agents.ticks(GUEST, to, TICKS))
        here = ticks_from_proto(agents.ticks(GUEST, giver))
        seen = judge(here, there)
        self.trial.ticks = seen.ticks_after
        self.trial.ticks_lost = (self.trial.ticks_lost or 0) + seen.missing + seen.repeated
        return f"it stood still for {(result.resumed_ns - result.stopped_ns) / 1e6:.1f} ms"

    def _update(self, watch: Watch, new: str, called: str) -> str:
        self.evidence.ask("old")
        watch.forget("old")
        name = lab.kernel_name(new)
        coming = self._starts(called, name)
        request = coordinator.UpdateRequest(
            launch=coordinator.LaunchRequest(
                kernel=name, append=self.wanted.append_new, join_timeout_s=self._join_timeout_s
            ),
            verify=True,
            terms=to_proto(PATIENT),
        )
        with client.connect(self._lab.agent_address) as channel, translated("the old root's agent"):
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            root: int = stub.GetState(coordinator.GetStateRequest(), timeout=ASK_S).root
            follow(stub.Update(request), self._heard, empty=True)
        self.reached.changing = True
        ended = self._lab.state.ending
        successor.wait(
            self._lab.agent_address,
            root,
            self._heard,
            until=successor.COMPLETE,
            timeout_s=UPDATE_S * self._slowness,
            ended=ended,
        )
        self.reached.changing, self.reached.alone, self.reached.first = False, True, coming
        watch.ask("old", coming.console, called)
        self.evidence.identify(coming, "old")
        return f"root {root} has retired"

    def _standard(self, watch: Watch, agents: Agents) -> None:
        """Handoff there and back, then two updates in a row."""
        self._step(GUEST_BOOT, lambda: self._start_guest(watch, agents))
        self._step(LAUNCH, lambda: self._launch(watch, agents))
        self._step(THERE, lambda: self._hand_over(agents, "new"))
        self._step(BACK, lambda: self._hand_over(agents, "old"))
        self._step(RELEASE, lambda: self._release(watch, agents))
        self._step(UPDATE, lambda: self._update(watch, self.wanted.new, AFTER_UPDATE))
        self._step(NEXT, lambda: self._update(watch, self.wanted.lab.kernel, AFTER_NEXT))

    def _release(self, watch: Watch, agents: Agents) -> str:
        self.evidence.ask("new")
        watch.forget("new")
        agents.release(self._heard)
        self.reached.second = None
        return "its CPUs and memory are the old root's again"

    def _command(self, watch: Watch) -> str:
        where = self.wanted.where
        environment = {"MULTIROOT_WHERE": where.value}
        words = self.wanted.command
        self.trial.command = Command(words, where.value)
        began = time.monotonic()
        if where is Where.WORKSTATION:
            # In a root they would lead away from its own agent.
            environment["MULTIROOT_AGENT"] = self._lab.state.agent_target
            environment["MULTIROOT_LAB"] = self.machine.name
            with self.phases.phase(PhaseName.RUN_COMMAND), self._limited(watch):
                code = carry.run_here(words, environment)
        else:
            with self.phases.phase(PhaseName.CARRY_IN):
                reach = self._reach(where)
                there = carry.carry_in(reach, words, self.wanted.carried)
            asking = self._asking(watch, where)
            with self.phases.phase(PhaseName.RUN_COMMAND), self._limited(watch), asking:
                code = carry.run_there(reach, there, environment, self.streams)
        self.trial.command = Command(words, where.value, code, round(time.monotonic() - began, 3))
        return ""

    def _reach(self, where: Where) -> carry.Reach:
        if where is Where.VM:
            return self._reach_guest
        # After an update the new root is the one that answers first.
        return partial(self._lab.channel, "old" if self.reached.alone else where.value)

    def _asking(self, watch: Watch, where: Where) -> AbstractContextManager[None]:
        """Notices that what runs there has made the guest stand still; roots are asked all the time."""
        if where is not Where.VM:
            return nullcontext()
        patience_s = self.wanted.patience_s or GUEST_PATIENCE_S * self._slowness
        return watch.asking_guest(self._reach_guest, patience_s)

    def _kselftests(self, watch: Watch) -> str:
        slowness = kselftest_run.SLOWNESS if self.machine.accelerator == "tcg" else 1
        for where in self.wanted.places:
            runner = kselftest_run.Runner(
                self._reach(where),
                where.value,
                self.phases,
                limit_s=self.wanted.timeout_s,
                slowness=slowness,
                heard=self.streams.stdout,
            )
            with self._asking(watch, where):
                for ended in runner.play(self.wanted.suites):
                    self.trial.ran.append(ended)
        return f"{len(self.trial.ran)} kselftests ran"

    def _limited(self, watch: Watch) -> AbstractContextManager[None]:
        return watch.limit(self.wanted.timeout_s, self.wanted.command[0])

    def down(self) -> None:
        """End the machine, if there is one."""
        if self.reached.lab:
            with self.phases.phase(PhaseName.SHUT_LAB_DOWN):
                self.reached.lab.down()
