# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench disk`: how fast a guest's disk is, by each way in which all roots reach one, beside a disk that the
guest's root alone has.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiroot.bench.contender import interleave
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.names import LOCAL_FILE, NBD_SERVER, OWN_DISK, PMEM_DISK
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read
from multiroot.bench.same_kernel import SameKernelVm
from multiroot.demo.debian_disks import pmem
from multiroot.errors import CommandError
from multiroot.lab import disk_image, grub
from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.lab.nbd_server import NbdServer
from multiroot.phases import Phases
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import MIB

RECIPE = "large-disk"  # has a disk for a file system, and one that is a guest's
FILE = "/mnt/speed.raw"
SPARE = "/dev/vdb"
SIZE = 64 * MIB
READ = "read_mb_per_s"
METRICS = (READ, "write_mb_per_s", "small_read_mb_per_s", "small_write_mb_per_s")
_SETUP = f"mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && truncate -s {SIZE} {FILE}"
_VM = "speed"
_RAM = 128 * MIB
_APPEND = "ticker.speed=vda ticker.region=4 ticker.period=100"
_FIELDS: dict[str, Any] = {"ram_bytes": _RAM, "cpus": 1, "append": _APPEND}
_TICKS = 3
_LINE = re.compile(r"^S (\d+) requests=(\d+) write=(\d+) read=(\d+)\r?$", re.MULTILINE)
_LARGE = 64 << 10
_SETUP_S = 300.0


@dataclass(frozen=True)
class Options:
    """Of the new root's kernel nothing is used."""

    lab: labs.Options
    rounds: int = 5
    seed: int = 1


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    with ExitStack() as stack:
        recorder = stack.enter_context(closing(Recorder(out / "samples.jsonl")))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multiroot-bench-")))
        shown, served = (_empty_disk(folder / name) for name in ("shown.raw", "served.raw"))
        server = NbdServer(disk_image.tools(labs.cache(phases)), served)
        stack.callback(server.close)
        server.start()
        wanted = replace(options.lab, machine=RECIPE, vms=1, vm_memory=2 * _RAM, disks=(str(shown),))
        machine, agents = stack.enter_context(lab_machine(wanted, phases))
        kept = {"kernel": options.lab.kernel, "rounds": options.rounds}
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("disk", options.seed, kept, found))
        done = machine.run(["sh", "-c", _SETUP], timeout=_SETUP_S)
        if done.returncode:
            raise CommandError("the machine's disk cannot be used", done.stderr.strip())
        (address,) = pmem(machine)
        contenders = (
            Shared(PMEM_DISK, agents, address),
            Shared(LOCAL_FILE, agents, f"local:{FILE}"),
            Shared(NBD_SERVER, agents, server.source),
            Own(machine),
        )
        interleave(contenders, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def _empty_disk(path: Path) -> Path:
    """A file that the lab takes for a disk; all of it is there, so that no write has to make room."""
    with path.open("wb") as file:
        file.write(grub.SIGNATURE.rjust(512, b"\0"))
        os.posix_fallocate(file.fileno(), 0, SIZE)
    return path


def parse(console: str) -> dict[str, float]:
    """What the guest has said of its disk. Raises CommandError if that is not all, or a request failed."""
    values: dict[str, float] = {}
    for size, requests, *took in (map(int, found) for found in _LINE.findall(console)):
        for what, took_ns in zip(("write", "read"), took, strict=True):
            if took_ns:
                name = f"{'' if size == _LARGE else 'small_'}{what}_mb_per_s"
                values[name] = round(size * requests * 1e3 / took_ns, 3)
    if missing := {*METRICS} - {*values}:
        lacking = ", ".join(sorted(missing))
        raise CommandError(f"the guest does not tell all of its disk: no {lacking}", console[-200:])
    return values


class Shared:
    """A VM of the agent's; each sample is one boot."""

    def __init__(self, name: str, agents: Agents, source: str) -> None:
        self.name = name
        self._agents = agents
        self._definition = vm_pb2.VmDefinition(name=_VM, disks=[vm_pb2.Disk(source=source)], **_FIELDS)

    def prepare(self) -> None:
        """Nothing stays between two samples."""

    def sample(self) -> list[Sample]:
        self._agents.run(self._definition)
        try:
            self._agents.ticks(_VM, "old", _TICKS)
            return [Sample(self.name, 0, parse(self._agents.console(_VM, "old")))]
        finally:
            self._agents.stop(_VM, "old")

    def close(self) -> None:
        """Nothing is left."""


class Own:
    """The same VM, whose QEMU has a disk of its root alone."""

    name = OWN_DISK

    def __init__(self, machine: Lab) -> None:
        self._machine = machine

    def prepare(self) -> None:
        """Nothing stays between two samples."""

    def sample(self) -> list[Sample]:
        vm = SameKernelVm(self._machine, name=f"{_VM}-own", node=SPARE, **_FIELDS)
        with closing(vm):
            return [Sample(self.name, 0, parse(vm.ask("said")["text"]))]

    def close(self) -> None:
        """Nothing is left."""
