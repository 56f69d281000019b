# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench link`: the link between roots beside loopback TCP and beside virtio-net between two machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.bench.contender import interleave
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read
from multiroot.bench.results.summary import quantile
from multiroot.errors import CommandError
from multiroot.lab import lab as labs
from multiroot.lab.lab import Lab
from multiroot.lab.machine import card_sockets
from multiroot.net.addresses import root_address
from multiroot.phases import Phases

LINK, LOOPBACK, VIRTIO, DOORBELL = "link", "loopback", "virtio-net", "doorbell"
RECIPE = "pair"  # has a network card of its own for this, the first of its devices
CARD = 1
FIRST, SECOND = "10.78.0.1", "10.78.0.2"
LOCALHOST = "127.0.0.1"
RTT, STREAM, CPU = "rtt_p50_us", "stream_mb_per_s", "cpu_ns_per_kb"
RAW = "trips.jsonl"  # every single round trip, beside the samples
_PROBE = ("python3", "-m", "multiroot.bench.in_root.probe")
# The card is the network device that is behind a port, not on the root bus.
_CARD_UP = """
set -e
for card in /sys/class/net/eth*; do
    case $(readlink "$card") in */0000:0[1-9]:00.0/*) name=${card##*/} ;; esac
done
ip link set "$name" address "$1"
ip address replace "$2/24" dev "$name"
ip link set "$name" up
"""


@dataclass(frozen=True)
class Options:
    """The new root's kernel is the first of the lab's `kernels`."""

    lab: labs.Options
    rounds: int = 5
    seed: int = 1


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. Both machines end with it."""
    wanted = replace(options.lab, machine=RECIPE)
    with (
        closing(Recorder(out / "samples.jsonl")) as recorder,
        lab_machine(wanted, phases) as (machine, agents),
        lab_machine(replace(wanted, name=f"{wanted.name}-other"), phases) as (other, _),
        (out / RAW).open("w") as raw,
    ):
        kept = {"kernel": options.lab.kernel, "rounds": options.rounds}
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("link", options.seed, kept, found))
        new = agents.launch(labs.kernel_name(wanted.kernels[0]), phases.publish)[0].root

        def join() -> None:
            connect(machine, other)

        def keep(name: str, trips: list[int]) -> None:
            raw.write(json.dumps({"contender": name, "ns": trips}) + "\n")

        contenders = (
            Network(Way(LINK, machine, (machine, "new"), root_address(new)), keep),
            Network(Way(LOOPBACK, machine, (machine, "old"), LOCALHOST, one_root=True), keep),
            Network(Way(VIRTIO, machine, (other, "old"), SECOND, connect=join), keep),
            Doorbell(machine, keep),
        )
        interleave(contenders, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def connect(one: Lab, two: Lab) -> None:
    """Make a cable between the cards of two machines: what one sends the other takes."""
    for here, there in ((one, two), (two, one)):
        sends = card_sockets(here.state.machine, CARD)[1]
        sends.unlink(missing_ok=True)
        sends.symlink_to(card_sockets(there.state.machine, CARD)[0])
    for machine, number, address in ((one, 1, FIRST), (two, 2, SECOND)):
        hardware = f"52:54:00:00:78:{number:02x}"
        _checked(machine, "old", ["sh", "-c", _CARD_UP, "card", hardware, address])


@dataclass(frozen=True)
class Way:
    """A way from `machine`'s old root to `server`, a root of a machine, which has `address` on it.

    In `one_root` both ends are in the same root. `connect` sets the way up, where that takes anything.
    """

    name: str
    machine: Lab
    server: tuple[Lab, str]
    address: str
    one_root: bool = False
    connect: Callable[[], None] | None = None


class Network:
    """A TCP connection along a way."""

    def __init__(self, way: Way, keep: Callable[[str, list[int]], None]) -> None:
        self.name = way.name
        self._way = way
        self._keep = keep
        self._pid = ""

    def prepare(self) -> None:
        if self._way.connect:
            self._way.connect()
        self._pid = _checked(*self._way.server, [*_PROBE, "serve", self._way.address]).strip()

    def sample(self) -> list[Sample]:
        seen = json.loads(_checked(self._way.machine, "old", [*_PROBE, "network", self._way.address]))
        self._keep(self.name, seen["rtt_ns"])
        return [Sample(self.name, 0, network_values(seen, one_root=self._way.one_root))]

    def close(self) -> None:
        if self._pid:
            _checked(*self._way.server, ["kill", self._pid])


class Doorbell:
    """The interrupt that the old root raises in the new one."""

    name = DOORBELL

    def __init__(self, machine: Lab, keep: Callable[[str, list[int]], None]) -> None:
        self._machine = machine
        self._keep = keep

    def prepare(self) -> None:
        """The module has it ready."""

    def sample(self) -> list[Sample]:
        trips = json.loads(_checked(self._machine, "old", [*_PROBE, "doorbell"]))["doorbell_ns"]
        self._keep(self.name, trips)
        return [
            Sample(
                self.name, 0, {"p50_us": quantile(trips, 0.5) / 1e3, "p99_us": quantile(trips, 0.99) / 1e3}
            )
        ]

    def close(self) -> None:
        """Nothing was left."""


def network_values(seen: dict[str, Any], *, one_root: bool) -> dict[str, float]:
    """A probe's answer as a sample's values. In `one_root` both ends have counted the same CPUs."""
    trips, stream = seen["rtt_ns"], seen["stream"]
    busy = stream["here_ns"] if one_root else stream["here_ns"] + stream["there_ns"]
    return {
        RTT: quantile(trips, 0.5) / 1e3,
        "rtt_p99_us": quantile(trips, 0.99) / 1e3,
        STREAM: stream["bytes"] * 1e3 / stream["took_ns"],
        CPU: busy * 1e3 / stream["bytes"],
    }


def _checked(machine: Lab, root: str, words: list[str]) -> str:
    done = machine.run(words, root=root)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        why = said[-1] if said else proc.how_ended_in_shell(done.returncode)
        raise CommandError(f"{' '.join(words[:5])} in the {root} root: {why}")
    return done.stdout
