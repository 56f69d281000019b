# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench watch`: our handoff while nobody looks, and while many browsers do, in turns on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.bench import launch, workload
from multiroot.bench.contender import interleave
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.names import UNWATCHED, WATCHED
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read
from multiroot.demo.guests import BOARD_PORT, ECHO_PORT
from multiroot.errors import BadRequestError, MultirootError
from multiroot.lab import lab as labs
from multiroot.net.addresses import guest_address, interface
from multiroot.phases import Phases
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import MIB

END_S = 60.0  # for programs that are told to end


@dataclass(frozen=True)
class Options:
    """`ram` in bytes; so many `readers` of the page's stream, and `tabs` of a real Chromium that draw it."""

    lab: labs.Options
    ram: int = 128 * MIB
    readers: int = 50
    tabs: int = 0
    rounds: int = 10
    seed: int = 1

    def data(self) -> dict[str, Any]:
        """As kept in a run's header."""
        kernels = {"kernel": self.lab.kernel, "kernels": list(self.lab.kernels)}
        return {
            "lab": kernels,
            **{name: getattr(self, name) for name in ("ram", "readers", "tabs", "rounds")},
        }


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    wanted = replace(options.lab, vms=1, vm_memory=2 * options.ram)
    with (
        closing(Recorder(out / "samples.jsonl")) as recorder,
        lab_machine(wanted, phases) as (machine, agents),
    ):
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("watch", options.seed, options.data(), found))
        launch.launch(machine, agents, labs.kernel_name(options.lab.kernels[0]), phases.publish)
        pool = Pool(machine, agents, phases.publish)
        crowd = Crowd(options.lab.name, options.readers, options.tabs, out / "audience.log")
        vms = [definition(options.ram)]
        both = (MultiRoot(UNWATCHED, pool, vms), Watched(MultiRoot(WATCHED, pool, vms), crowd))
        interleave(both, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def definition(ram: int) -> vm_pb2.VmDefinition:
    """A VM as a demo has it: the page's visitors ask it for its board, and ping it."""
    append = f"{workload.words()} ticker.echo={ECHO_PORT} ticker.board={BOARD_PORT}".strip()
    card = vm_pb2.Card(address=interface(guest_address(1)))
    return vm_pb2.VmDefinition(
        name="vm1", ram_bytes=ram, cpus=1, machine="q35", guest="ticker", append=append, cards=[card]
    )


class Crowd:
    """A page's server and those who look at it; there while `looking`, and not in between."""

    def __init__(self, lab: str, readers: int, tabs: int, log: Path) -> None:
        self._lab = lab
        self._who = ["--readers", str(readers), "--tabs", str(tabs)]
        self._log = log
        self.seen: dict[str, float] = {}  # by the last that looked

    @contextmanager
    def looking(self) -> Iterator[None]:
        """All of them have seen the machine, and look on. Raises MultirootError if one does not."""
        server = self._start(["multiroot.cli.main", "lab", "ui", "--name", self._lab, "--port", "0"])
        try:
            address = _line(server, "the page's server").partition("#")[0]
            audience = self._start(["multiroot.page.audience", address, *self._who])
            try:
                _line(audience, "the audience")
                yield
            finally:
                said = _end(audience)
        finally:
            _end(server)
        self.seen = {name: float(value) for name, value in json.loads(said).items()}
        if not self.seen["least_events"]:
            raise MultirootError(f"somebody in the audience saw nothing: {self.seen}")

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        return proc.spawn([sys.executable, "-m", *words], log=self._log, piped=True)


def _line(process: subprocess.Popen[bytes], what: str) -> str:
    """The first line that it says; raises MultirootError if it ends first."""
    line = process.stdout.readline().decode().strip() if process.stdout else ""
    if not line:
        raise MultirootError(f"{what} did not start", "its log is beside the samples")
    return line


def _end(process: subprocess.Popen[bytes]) -> str:
    """Whatever it does; what it says last."""
    process.terminate()
    try:
        said, _ = process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return said.decode()


class Watched:
    """The same handoff before an audience."""

    name = WATCHED

    def __init__(self, ours: MultiRoot, crowd: Crowd) -> None:
        self._ours = ours
        self._crowd = crowd

    def prepare(self) -> None:
        self._ours.prepare()

    def sample(self) -> list[Sample]:
        with self._crowd.looking():
            samples = self._ours.sample()
        for sample in samples:
            sample.values.update(self._crowd.seen)
        return samples

    def close(self) -> None:
        self._ours.close()


def check(options: Options) -> Options:
    """Raises BadRequestError for what makes no sense, or cannot be done on this computer."""
    if options.readers < 1:
        raise BadRequestError("at least one reader is needed")
    if options.tabs and not proc.find("chromium"):
        raise BadRequestError("no Chromium is installed", "apt-get install chromium, or --tabs 0")
    return options
