# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench connection`: how long one TCP connection from the workstation to a guest stands in our handoffs."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from multiroot.bench import launch, traced
from multiroot.bench.contender import interleave
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.names import OURS
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read
from multiroot.bench.traced import Traced
from multiroot.bench.watch import definition
from multiroot.demo.guests import ECHO_PORT
from multiroot.errors import MultirootError
from multiroot.lab import forwards
from multiroot.lab import lab as labs
from multiroot.lab.state import LabState
from multiroot.phases import Phases
from multiroot.units import MIB

STILL, BEYOND, USUAL = METRICS = ("still_ns", "beyond_ns", "usual_ns")
TRACED = (TRACED_STILL, BLACKOUT) = ("traced_still_ns", traced.BLACKOUT)
ASK_S = 0.002  # from an answer to the next question
PATIENCE_S = 120.0
ENOUGH = 100  # answers tell what is usual
_WORD = b"."


@dataclass(frozen=True)
class Options:
    """`ram` of the VM in bytes."""

    lab: labs.Options
    ram: int = 128 * MIB
    rounds: int = 10
    seed: int = 1

    def data(self) -> dict[str, Any]:
        """As kept in a run's header."""
        kernels = {"kernel": self.lab.kernel, "kernels": list(self.lab.kernels)}
        return {"lab": kernels, "ram": self.ram, "rounds": self.rounds}


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    wanted = replace(options.lab, vms=1, vm_memory=2 * options.ram)
    with (
        closing(Recorder(out / "samples.jsonl")) as recorder,
        lab_machine(wanted, phases) as (machine, agents),
    ):
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("connection", options.seed, options.data(), found))
        launch.launch(machine, agents, labs.kernel_name(options.lab.kernels[0]), phases.publish)
        vm = definition(options.ram)
        pool = Pool(machine, agents, phases.publish)
        ways = [MultiRoot(OURS, pool, [vm]), Traced(machine, agents, pool, [vm])]
        # The same one for all.
        connected = cache(lambda: connect(machine.state, vm.cards[0].address.partition("/")[0]))
        asked = [Asked(way, connected) for way in ways]
        interleave(asked, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def connect(lab: LabState, address: str) -> socket.socket:
    """A connection to what says back every word in the guest."""
    port = forwards.add(lab, address, ECHO_PORT).port
    made = socket.create_connection((forwards.HOST, port), PATIENCE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Asking:
    """Says a word again and again, each when the one before has come back, until the end of a `with`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ended = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
        self.took_ns: list[int] = []  # for each word, until it was back
        self.broken = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(ASK_S):
                began = time.monotonic_ns()
                self._connection.sendall(_WORD)
                if not self._connection.recv(len(_WORD)):
                    raise ConnectionError("the guest has closed it")
                self._came(time.monotonic_ns() - began)
        except OSError as error:  # a time-out, too
            with self._news:
                self.broken = str(error) or type(error).__name__
                self._news.notify_all()

    def _came(self, took_ns: int) -> None:
        with self._news:
            self.took_ns.append(took_ns)
            self._news.notify_all()

    def wait_for(self, more: int) -> None:
        """Until so many more words have come back. Raises MultirootError if the connection has ended."""
        wanted = len(self.took_ns) + more
        with self._news:
            self._news.wait_for(lambda: self.broken or len(self.took_ns) >= wanted, PATIENCE_S)
        if len(self.took_ns) < wanted:
            raise MultirootError(f"the connection to the guest stands: {self.broken or 'no answer came'}")


class Asked:
    """The handoff of a VM whose guest answers somebody all the time, by one connection for all samples. One
    with tracepoints on is not compared with others.
    """

    def __init__(self, ours: MultiRoot, connect: Callable[[], socket.socket]) -> None:
        self.name = ours.name
        self._ours = ours
        self._connect = connect
        self._connection: socket.socket | None = None

    def prepare(self) -> None:
        self._ours.prepare()

    def sample(self) -> list[Sample]:
        """Nobody asks while the VM rests between two samples."""
        self._ours.wake()
        self._connection = self._connection or self._connect()
        with Asking(self._connection) as asking:
            asking.wait_for(ENOUGH)
            usual = statistics.median(asking.took_ns)
            before = len(asking.took_ns)
            (sample,) = self._ours.hand_over()
            asking.wait_for(2)
            still = max(asking.took_ns[before:])
        self._ours.rest()
        if BLACKOUT in sample.values:
            return [replace(sample, values={**sample.values, TRACED_STILL: still})]
        beyond = still - sample.values["blackout_ns"] - usual
        return [replace(sample, values={**sample.values, STILL: still, BEYOND: beyond, USUAL: usual})]

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._ours.close()
