# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays one trial in a lab machine and notes what it sees.

What a kernel does wrong is an observation: the trial goes on to the judging. What keeps us from trying it at
all, be it a kernel that is not built or a lab that does not start, is raised.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

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
from multiroot.lab import execution, kernels, lab, paths, state
from multiroot.lab.agents import Agents
from multiroot.lab.boot import QEMU_LOG, BootError
from multiroot.lab.build import Built
from multiroot.lab.cache import Cache
from multiroot.lab.execution import Channel
from multiroot.lab.guests import COMMANDS, TICKER, image
from multiroot.lab.lab import Lab
from multiroot.lab.machine import Machine
from multiroot.lab.own_kernel import KernelSource
from multiroot.lab.recorder import EVENTS_LOG, console_log, console_text
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
from multiroot.verdict.allow import apply
from multiroot.verdict.findings import Finding
from multiroot.verdict.symbols import Symbols, symbolised
from multiroot.vm.messages import ticks_from_proto
from multiroot.workbench import carry, kselftest_run, look
from multiroot.workbench.carry import Streams
from multiroot.workbench.look import Image
from multiroot.workbench.trial_report import Command, Step, Trial
from multiroot.workbench.wanted import VM_MEMORY, Until, Wanted, Where
from multiroot.workbench.watch import RootLostError, Watch

BACKTRACES = "backtraces-new.txt"
# Guests report with every 64th tick, and both roots have to see a report.
TICKS = 70
GUEST = "vm1"
# A kernel that has spoken and then says nothing for so long hangs; before, it is being unpacked.
BOOT_LIMITS = Limits(silence=60.0, total=600.0, spoken=25.0)
UPDATE_S = 400.0
ASK_S = 30.0
# These say that the request was wrong or something else is in the way: of the kernel they say nothing.
_OURS = (BadRequestError, ConflictError, StrangerError)

BOOT, GUEST_BOOT, LAUNCH, THERE = (
    "the old root boots",
    "the guest runs",
    "the new root comes up",
    "the guest moves",
)
BACK, RELEASE = "the guest comes back", "the new root is released"
UPDATE, NEXT = "the update ends with the new root alone", "the next update does, too"
LIVE = "the roots live while the command runs"


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
        player.look()
    finally:
        if not wanted.keep:
            player.down()
        if wanted.logs:
            player.keep_logs(wanted.logs)
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
    lab: Lab | None = None
    launched: bool = False  # a new root has been started, and the old one is still there
    alone: bool = False  # the old root has retired
    remote: list[Phase] = field(default_factory=list)  # phases of agents
    lost: bool = False  # a root died or stands still: nobody is asked any more
    token: str = field(default_factory=lambda: secrets.token_hex(16))  # of a guest that runs commands

    def play(self) -> None:
        """All steps; _Bad after one that did not hold."""
        self._step(BOOT, self._boot)
        machine = self._lab
        self._identify("old", self.machine.kernel)
        with Watch(machine, self.wanted.patience_s) as watch, Agents(machine.agent_address) as agents:
            watch.ask("old")
            if NEXT in self.trial.planned:
                self._standard(watch, agents)
                return
            if GUEST_BOOT in self.trial.planned:
                self._step(GUEST_BOOT, lambda: self._start_guest(agents))
            if self.wanted.until in (Until.LAUNCH, Until.HANDOVER):
                self._step(LAUNCH, lambda: self._launch(watch, agents))
            if self.wanted.until is Until.HANDOVER:
                self._step(THERE, lambda: self._hand_over(agents, "new"))
            if self.wanted.until is Until.UPDATE:
                self._step(UPDATE, lambda: self._update(watch, self.wanted.new))
            run = self._kselftests if self.wanted.suites else partial(self._command, watch)
            self._step(LIVE, run)

    def _heard(self, phase: Phase) -> None:
        """Show a phase of an agent, and keep it when it has ended."""
        self.phases.publish(phase)
        if phase.duration_ns is not None:
            self.remote.append(phase)

    @property
    def _lab(self) -> Lab:
        assert self.lab
        return self.lab

    def _step(self, name: str, take: Callable[[], str]) -> None:
        """Take one and note what came of it; what is our fault is raised."""
        began = time.monotonic()
        try:
            seen, held = take(), True
        except _OURS:
            raise
        except MultirootError as error:
            seen, held = str(error), False
            self.lost = isinstance(error, RootLostError)
        self.trial.steps.append(Step(name, held, seen, round(time.monotonic() - began, 3)))
        if not held:
            raise _Bad

    def _boot(self) -> str:
        attempts = 1 + self.wanted.retries
        try:
            self.lab = lab.start(self.machine, self.built, self.phases, attempts=attempts, limits=BOOT_LIMITS)
        except BootError as error:
            if state.load(self.machine.name).attempts[-1].final:
                raise BadRequestError(error.message, error.hint) from error
            raise
        return f"{self.machine.release}, attempt {len(self.lab.state.attempts)}"

    def _start_guest(self, agents: Agents) -> str:
        (definition,) = guests.definitions(1, VM_MEMORY)
        kernel = lab.kernel_name(self.wanted.guest) if self.wanted.guest else ""
        definition.guest = image(TICKER, kernel)
        if self.wanted.guest_takes_commands:
            definition.guest, definition.append = image(COMMANDS, kernel), f"{COMMANDS}.token={self.token}"
        # "quiet" is on its command line; then warnings are not heard.
        definition.append += " loglevel=5"
        with self.phases.phase(PhaseName.START_VMS):
            agents.run(definition)
        if not self.wanted.guest_takes_commands:
            return f"{GUEST} is started"
        with self.phases.phase(PhaseName.WAIT_FOR_GUESTS):
            self._await_guest()
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
            kernel=name, append=self.wanted.append_new, join_timeout_s=self.wanted.join_timeout_s
        )
        launched = None
        for attempt in range(1, self.wanted.retries + 2):
            try:
                launched = agents.launch_as(request, self._heard)
                break
            except MultirootError:
                if attempt > self.wanted.retries:
                    raise
        assert launched
        self.launched = True
        watch.ask("new")
        self._identify("new", name)
        seconds = (launched.ready_ns - launched.start_ns) / 1e9
        return f"root {launched.root} joined {seconds:.1f} s after its CPU was started, attempt {attempt}"

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

    def _update(self, watch: Watch, new: str) -> str:
        watch.forget("old")
        name = lab.kernel_name(new)
        request = coordinator.UpdateRequest(
            launch=coordinator.LaunchRequest(
                kernel=name, append=self.wanted.append_new, join_timeout_s=self.wanted.join_timeout_s
            ),
            verify=True,
            terms=to_proto(PATIENT),
        )
        with client.connect(self._lab.agent_address) as channel, translated("the old root's agent"):
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            root: int = stub.GetState(coordinator.GetStateRequest(), timeout=ASK_S).root
            follow(stub.Update(request), self._heard, empty=True)
        ended = self._lab.state.ending
        successor.wait(
            self._lab.agent_address,
            root,
            self._heard,
            until=successor.COMPLETE,
            timeout_s=UPDATE_S,
            ended=ended,
        )
        self.launched, self.alone = False, True
        watch.ask("old")
        self._identify("new", name, root="old")
        return f"root {root} has retired"

    def _standard(self, watch: Watch, agents: Agents) -> None:
        """Handoff there and back, then two updates in a row."""
        self._step(GUEST_BOOT, lambda: self._start_guest(agents))
        self._step(LAUNCH, lambda: self._launch(watch, agents))
        self._step(THERE, lambda: self._hand_over(agents, "new"))
        self._step(BACK, lambda: self._hand_over(agents, "old"))
        self._step(RELEASE, lambda: self._release(watch, agents))
        for name, kernel in ((UPDATE, self.wanted.new), (NEXT, self.wanted.lab.kernel)):
            self._step(name, lambda kernel=kernel: self._update(watch, kernel))  # type: ignore[misc]

    def _release(self, watch: Watch, agents: Agents) -> str:
        watch.forget("new")
        agents.release(self._heard)
        self.launched = False
        return "its CPUs and memory are the old root's again"

    def _command(self, watch: Watch) -> str:
        where = self.wanted.where
        environment = {
            "MULTIROOT_WHERE": where.value,
            "MULTIROOT_AGENT": self._lab.state.agent_target,
            "MULTIROOT_LAB": self.machine.name,
        }
        words = self.wanted.command
        self.trial.command = Command(words, where.value)
        began = time.monotonic()
        if where is Where.WORKSTATION:
            with self.phases.phase(PhaseName.RUN_COMMAND), self._limited(watch):
                code = carry.run_here(words, environment)
        else:
            with self.phases.phase(PhaseName.CARRY_IN):
                reach = self._reach(where)
                there = carry.carry_in(reach, words, self.wanted.carried)
            with self.phases.phase(PhaseName.RUN_COMMAND), self._limited(watch):
                code = carry.run_there(reach, there, environment, self.streams)
        self.trial.command = Command(words, where.value, code, round(time.monotonic() - began, 3))
        return ""

    def _reach(self, where: Where) -> carry.Reach:
        if where is Where.VM:
            return self._reach_guest
        # After an update the new root is the one that answers first.
        return partial(self._lab.channel, "old" if self.alone else where.value)

    def _kselftests(self) -> str:
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
            for ended in runner.play(self.wanted.suites):
                self.trial.ran.append(ended)
        return f"{len(self.trial.ran)} kselftests ran"

    def _limited(self, watch: Watch) -> AbstractContextManager[None]:
        return watch.limit(self.wanted.timeout_s, self.wanted.command[0])

    def _identify(self, where: str, name: str, root: str = "") -> None:
        """Note which image was asked for there and which one runs."""
        told = look.facts(self._lab, root or where)
        ran = look.ran_old(self._lab, told) if where == "old" else look.ran_new(self._lab, name, told)
        asked = self._asked(name)
        self.trial.identities.append(look.Identity(where, asked, ran))

    def _asked(self, name: str) -> Image:
        kernel = self.built.kernels[name]
        sha256 = look.sha256_of(kernel.vmlinuz)
        artifacts = lab.cache(self.phases)
        return Image(
            name, kernel.release, sha256, _build_id(name, sha256, kernel.vmlinuz.read_bytes, artifacts)
        )

    def look(self) -> None:
        """Collect what the kernels said, from whoever still answers."""
        found: list[Finding] = []
        with self.phases.phase(PhaseName.COLLECT):
            folder = self.machine.state
            found += look.consoles(folder)
            self.trial.listened = ["old", *(["new"] if self._new_spoke() else [])]
            if self.lab and self.lab.state.alive() and not self.lost:
                found += self._ask_the_living(found)
            elif self.lab and self.lab.state.alive() and self.launched:
                # The old root may be the one that was lost: then nobody can be asked.
                with suppress(MultirootError):
                    self.trial.backtraces = look.backtraces(self.lab)
            self.trial.resets = state.load(self.machine.name).resets()
        found = apply(found, self.wanted.allow)
        with self.phases.phase(PhaseName.LINES_OF_SOURCE, findings=len(found)):
            self.trial.findings = symbolised(found, self._symbols()) if found else []

    def _new_spoke(self) -> bool:
        return bool(console_text(self.machine.state, "new").strip())

    def _ask_the_living(self, found: list[Finding]) -> list[Finding]:
        more: list[Finding] = []
        # After a step that did not hold, a root need not answer any more; else that is an error.
        failed = any(not each.held for each in self.trial.steps)
        tolerant = suppress(MultirootError) if failed else nullcontext()
        # A root that is alone is reached where the old one was.
        reached = {"new": "old"} if self.alone else {"old": "old"} | ({"new": "new"} if self.launched else {})
        for root, name in reached.items():
            with tolerant:
                more += look.taints(root, look.facts(self._lab, name), found)
                leaks = look.leaks(self._lab, name, root)
                self.trial.leaks[root] = leaks is not None
                more += leaks or []
        if GUEST_BOOT in (each.name for each in self.trial.steps):
            with tolerant:
                more += look.guest(
                    self._lab, GUEST, None if self.alone else "new" if self.launched else "old"
                )
                self.trial.listened.append(GUEST)
        return more

    def _symbols(self) -> dict[str, Symbols]:
        """By release; of two kernels of one release neither, for nobody can tell whose function it was."""
        given = self.wanted.lab.all_kernels
        sources = {each.name: each for each in lab.own_kernels(self.wanted.lab)}
        known: dict[str, list[KernelSource]] = {}
        for text in dict.fromkeys(given):
            if source := sources.get(lab.kernel_name(text)):
                known.setdefault(source.release, []).append(source)
        return {release: _symbols_of(only[0]) for release, only in known.items() if len(only) == 1}

    def keep_logs(self, folder: Path) -> None:
        """Copy what the machine's consoles and its emulator have said."""
        paths.make_dir(folder)
        for name in (console_log("old"), console_log("new"), QEMU_LOG, EVENTS_LOG):
            if (self.machine.state / name).exists():
                shutil.copy(self.machine.state / name, folder)
        if self.trial.backtraces:
            (folder / BACKTRACES).write_text("\n".join(self.trial.backtraces) + "\n")

    def down(self) -> None:
        """End the machine, if there is one."""
        if self.lab:
            with self.phases.phase(PhaseName.SHUT_LAB_DOWN):
                self.lab.down()


def _build_id(name: str, sha256: str, image: Callable[[], bytes], artifacts: Cache) -> str:
    from multiroot.lab.build import emulator_artifact

    made = kernels.build_id_artifact(name, sha256, image, emulator_artifact(), artifacts)
    return (artifacts.ensure(made) / kernels.BUILD_ID).read_text().strip()


def _symbols_of(source: KernelSource) -> Symbols:
    """The files of a build; modules that are installed have no debug information."""
    built = () if source.installed else source.modules()
    return Symbols(source.vmlinux, {place.stem.replace("-", "_"): path for path, place in built})
