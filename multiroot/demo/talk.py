# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a talk by its script in a lab machine: launch, handoff, a crash on purpose, and so on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from multiroot.demo import guests
from multiroot.demo.scenario import LAUNCHES, TICKS_BEFORE
from multiroot.demo.stage import Audience
from multiroot.demo.talk_script import Part, Talk
from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.lab import lab
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab, kernel_name
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.rpc import client, successor
from multiroot.rpc.progress import follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2 as coordinator
from multiroot.rpc.v1 import coordinator_pb2_grpc
from multiroot.watch.facts import Facts, RootState

# The answer comes before the root dies.
_CRASH = "(busybox usleep 200000; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"
GOES_ON = 100  # ticks
JOIN_S = 300  # a computer that also shows the page may be slow
_OLD = "the old root's agent"


Show = Callable[[Phase], None]


@dataclass(frozen=True)
class Took:
    """How long a step took, and the wait behind it, in seconds. `retries`: launches that were tried again."""

    number: int
    part: Part
    did_s: float
    waited_s: float
    retries: int = 0


@dataclass(frozen=True)
class Options:
    """What is played, in which lab; `keep` leaves the lab running."""

    talk: Talk
    lab: lab.Options
    keep: bool = False


def play(
    options: Options,
    phases: Phases,
    audience: Audience,
    wait_for_key: Callable[[], None] | None = None,
    done: Callable[[Took], None] = lambda _: None,
) -> list[Took]:
    """Play it all; what each step took. Without `wait_for_key` nobody has to press any.

    Raises MultirootError for a step that does not go as written, naming it.
    """
    machine = lab.up(options.lab, phases)
    try:
        with client.connect(machine.agent_address, root="old") as old:
            wanted = guests.definitions(options.talk.vms, options.talk.vm_memory)
            guests.boot(old, wanted, TICKS_BEFORE, phases)
        with audience.open(machine):
            player = Player(machine, options.talk, phases, audience)
            parts = enumerate(options.talk.step, 1)
            took = [_one(player, number, part, wait_for_key, done) for number, part in parts]
            player.check_end()
            return took
    finally:
        if not options.keep:
            with phases.phase(PhaseName.SHUT_LAB_DOWN):
                machine.down()


def _one(
    player: Player,
    number: int,
    part: Part,
    wait_for_key: Callable[[], None] | None,
    done: Callable[[Took], None],
) -> Took:
    if part.pause and wait_for_key is not None:
        player.audience.ask(part.say, wait_for_key)
    else:
        player.audience.say(part.say)
    began = time.monotonic()
    try:
        retries = player.do(part)
    except MultirootError as error:
        error.message = f"step {number} ({part.do}): {error.message}"
        raise
    acted = time.monotonic()
    time.sleep(part.wait)  # the audience reads
    took = Took(number, part, acted - began, time.monotonic() - acted, retries)
    done(took)
    return took


class Player:
    """Does what a script says, and returns when all who watch can see that it is done."""

    def __init__(self, machine: Lab, talk: Talk, phases: Phases, audience: Audience) -> None:
        self._machine = machine
        self._talk = talk
        self._phases = phases
        self.audience = audience
        self._names = [each.name for each in guests.definitions(talk.vms, talk.vm_memory)]

    def do(self, part: Part) -> int:
        """One step; how often a launch was tried again."""
        match part.do:
            case "launch":
                return self._launch(part.kernel or self._talk.new_kernel)
            case "handoff":
                self._hand_over("new")
            case "back":
                self._hand_over("old")
            case "abort":
                self._abort()
            case "crash":
                self._crash()
            case "retire":
                self._retire(coordinator.ResumeRequest(until=PhaseName.RETIRE))
            case "next":
                retries = self._launch(part.kernel or self._talk.new_kernel)
                self._hand_over("new")
                self._retire(coordinator.ResumeRequest(until=PhaseName.RETIRE))
                return retries
        return 0

    def check_end(self) -> None:
        """The guests go on, and the machine was never reset; raises MultirootError if not."""

        def newest(facts: Facts) -> dict[str, int]:
            return {name: vm.ticks.counter for name, vm in facts.vms.items() if vm.ticks}

        before = newest(
            self.audience.wait(lambda facts: len(newest(facts)) == len(self._names), "a guest is silent")
        )
        facts = self.audience.wait(
            lambda facts: all(newest(facts).get(name, 0) >= at + GOES_ON for name, at in before.items()),
            "a guest was not seen to go on",
        )
        if facts.machine.resets:
            raise MultirootError(f"the machine was reset {facts.machine.resets} times")

    def _launch(self, kernel: str) -> int:
        """Emulated machines hang now and then while they boot, and so do new roots: it is tried again."""
        request = coordinator.LaunchRequest(kernel=kernel_name(kernel), join_timeout_s=JOIN_S)
        for attempt in range(LAUNCHES):
            try:
                with self._coordinator() as (stub, show), translated(_OLD):
                    number = follow(stub.Launch(request), show).launched.root
            except WaitTimeoutError:
                if attempt + 1 == LAUNCHES:
                    raise
                continue
            self.audience.wait(
                partial(_is, number=number, state=RootState.ALIVE), f"root {number} was not seen alive"
            )
            return attempt
        raise AssertionError("unreachable")

    def _hand_over(self, to: str) -> None:
        with Agents(self._machine.agent_address) as agents:
            results = agents.hand_over(self._names, to, self._phases.publish)
            taker = agents.status(to).root
        epochs = {result.name: result.epoch for result, _ in results}
        self.audience.wait(
            lambda facts: all(
                (facts.vms[name].owner, facts.vms[name].epoch) == (taker, epoch)
                for name, epoch in epochs.items()
            ),
            "the VMs were not seen to cross",
        )

    def _abort(self) -> None:
        with self._coordinator() as (stub, show), translated(_OLD):
            follow(stub.AbortUpdate(coordinator.AbortUpdateRequest()), show, wanted=["released"])
        self.audience.wait(lambda facts: len(_living(facts)) == 1, "the end of the new root was not seen")

    def _crash(self) -> None:
        """The new root alone, and never with a VM in it."""
        with Agents(self._machine.agent_address) as agents:
            status = agents.status("new")
        if status.vms:
            raise ConflictError(
                f"the new root has {', '.join(status.vms)}, which would be lost", "hand back first"
            )
        self._machine.run(["sh", "-c", _CRASH], root="new")
        self.audience.wait(
            partial(_is, number=status.root, state=RootState.CRASHED), "the crash was not seen"
        )

    def _retire(self, request: coordinator.ResumeRequest) -> None:
        with self._coordinator() as (stub, show), translated(_OLD):
            before = stub.GetState(coordinator.GetStateRequest(), timeout=successor.ANSWER_S).root
            follow(stub.Resume(request), show, wanted=["updated"])
        state = successor.wait(
            self._machine.agent_address,
            before,
            self._phases.publish,
            until=successor.COMPLETE,
            ended=self._machine.state.ending,
        )
        self.audience.wait(
            lambda facts: _is(facts, before, RootState.ENDED) and _is(facts, state.root, RootState.ALIVE),
            "the end of the old root was not seen",
        )

    @contextmanager
    def _coordinator(self) -> Iterator[tuple[coordinator_pb2_grpc.CoordinatorServiceStub, Show]]:
        """Of the old root, and who is shown its phases."""
        with client.connect(self._machine.agent_address, root="old") as channel:
            yield coordinator_pb2_grpc.CoordinatorServiceStub(channel), self._phases.publish


def _is(facts: Facts, number: int, state: RootState) -> bool:
    root = facts.roots.get(str(number))
    return root is not None and root.state is state


def _living(facts: Facts) -> list[str]:
    over = (RootState.ENDED, RootState.CRASHED)
    return [number for number, root in facts.roots.items() if root.state not in over]
