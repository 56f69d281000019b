# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench handoff`: our handoff beside everything else that takes a VM to another QEMU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from multiroot.bench import launch, workload
from multiroot.bench.contender import Contender, interleave
from multiroot.bench.first_handoff import Launched, Updated
from multiroot.bench.in_root import cpr
from multiroot.bench.kexec_pmem import KexecPmem
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.names import CLOCKS, CPR, HANDOFF, IN_PLACE, KEXEC, OF_ITS_OWN, OURS, SAME_KERNEL
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read, variant_name
from multiroot.bench.same_kernel import SameKernel, SameKernelVm
from multiroot.bench.traced import ROOTS, Traced, TracedInPlace
from multiroot.bench.tracer import Tracer
from multiroot.demo.debian_disks import IMAGE, pmem
from multiroot.errors import BadRequestError
from multiroot.lab import disk_image
from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.backends import Backend
from multiroot.lab.lab import Lab
from multiroot.phases import Phases
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import MIB, format_size
from multiroot.vm.definition import DIRECT, OVMF, SEABIOS, check_firmware

DIRTY_NEEDS = 256 * MIB
DEBIAN_NEEDS = 512 * MIB
UEFI_NEEDS = 256 * MIB
_LISTS = ("contenders", "ram", "machine", "firmware", "guest", "backend")


@dataclass(frozen=True)
class Kind:
    """A kind of VM that takes part; `label` tells it from the others, "" when there are none."""

    ram: int
    machine: str
    label: str
    firmware: str = DIRECT
    guest: str = workload.TICKER


@dataclass(frozen=True)
class Options:
    """`ram` in bytes; each size is measured with each machine, each firmware and each guest. UEFI has 256 MiB
    or more, a Debian 512 MiB, a firmware and a disk of the workstation's as persistent memory. `dirty`: MiB/s
    that the guest rewrites, `tick`: ms from one of its ticks to the next. A machine has one backend of the
    arena, so each boot has a machine for each.
    """

    lab: labs.Options
    contenders: tuple[str, ...] = HANDOFF
    ram: tuple[int, ...] = (128 * MIB,)
    vms: int = 1
    machine: tuple[str, ...] = ("q35",)
    firmware: tuple[str, ...] = (DIRECT,)
    guest: tuple[str, ...] = (workload.TICKER,)
    backend: tuple[str, ...] = (Backend.DEFAULT.value,)
    rounds: int = 5
    boots: int = 1
    seed: int = 1
    dirty: int = 0
    tick: int = workload.PERIOD_MS
    # So many new roots get a first handoff and later ones, and half as many a traced one; nothing else then.
    fresh: int = 0
    traced: bool = True  # one more handoff of ours and of in-place in each round, with tracepoints on

    def checked(self) -> Options:
        """Raises BadRequestError for what makes no sense."""
        unknown = [name for name in self.contenders if name not in HANDOFF]
        if unknown:
            raise BadRequestError(f"no contender called {unknown[0]!r}", f"there are: {', '.join(HANDOFF)}")
        numbers = {"round": self.rounds, "boot": self.boots, "VM": self.vms, "ms a tick": self.tick}
        for what, number in numbers.items():
            if number < 1:
                raise BadRequestError(f"at least one {what} is needed")
        for firmware in self.firmware:
            check_firmware(firmware)
        for guest in self.guest:
            if guest not in workload.GUESTS:
                raise BadRequestError(f"no guest {guest!r}", f"there are: {', '.join(workload.GUESTS)}")
        self._check_backends()
        if workload.DEBIAN in self.guest and {*OF_ITS_OWN, KEXEC} & {*self.contenders}:
            raise BadRequestError(
                f"{', '.join(OF_ITS_OWN)} and {KEXEC} are for the ticker",
                "name the others: --contenders multi-root,in-place",
            )
        if self.fresh and len(self.kinds()) * len(self.backend) > 1:
            raise BadRequestError(
                "--fresh measures one kind of VM", "name one of each: size, machine, firmware, guest, backend"
            )
        if self.dirty and min(self.ram) < DIRTY_NEEDS:
            raise BadRequestError("a guest that dirties memory does not fit into less than 256M", "say --ram")
        return self

    def _check_backends(self) -> None:
        known = [each.value for each in Backend]
        for backend in self.backend:
            if backend not in known:
                raise BadRequestError(f"no backend {backend!r}", f"there are: {', '.join(known)}")
        if {KEXEC} & {*self.contenders} and {*self.backend} - {Backend.DEFAULT.value}:
            raise BadRequestError(
                f"{KEXEC} finds VMs by device-dax alone", "name the others: --contenders multi-root,in-place"
            )

    def data(self) -> dict[str, Any]:
        """As kept in a run's header."""
        kept = asdict(self)
        kept["lab"] = {"kernel": self.lab.kernel, "kernels": list(self.lab.kernels)}
        return {**kept, **{name: list(kept[name]) for name in _LISTS}}

    def kinds(self, backend: str = "") -> list[Kind]:
        """All kinds of VM, each labelled with what not all have in common. `backend`: of the machine."""
        made = []
        for ram, machine, firmware, guest in product(self.ram, self.machine, self.firmware, self.guest):
            words = [format_size(ram)] * (len(self.ram) > 1) + [machine] * (len(self.machine) > 1)
            words += [firmware] * (len(self.firmware) > 1) + [guest] * (len(self.guest) > 1)
            words += [backend] * (len(self.backend) > 1)
            kind = Kind(ram, machine, " ".join(words), firmware, guest)
            if guest == workload.DEBIAN:
                started_by = SEABIOS if firmware == DIRECT else firmware
                kind = replace(kind, ram=max(ram, DEBIAN_NEEDS), firmware=started_by)
            elif firmware == OVMF:
                kind = replace(kind, ram=max(ram, UEFI_NEEDS))
            made.append(kind)
        return made

    @property
    def arena(self) -> int:
        """RAM of all VMs together, bytes: ours, one for the others that may need a second place, and one for
        each that needs a VM of its own.
        """
        return (self.vms + 2 + len({*OF_ITS_OWN} & {*self.contenders})) * sum(
            kind.ram for kind in self.kinds()
        )

    @property
    def disks(self) -> int:
        """How many VMs have one: ours, and the one that the other contenders share."""
        return (self.vms + 1) * sum(kind.guest == workload.DEBIAN for kind in self.kinds())


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    options = options.checked()
    wanted = replace(options.lab, vms=1, vm_memory=options.arena)
    with closing(Recorder(out / "samples.jsonl")) as recorder, copies(options.disks, phases) as disks:
        wanted = replace(wanted, disks=tuple(map(str, disks)))
        for boot, backend in enumerate(in_turns(options)):
            words = Backend(backend).appended(wanted.append)
            with lab_machine(replace(wanted, append=words), phases) as (machine, agents):
                if boot == 0:
                    found = provenance.versions(machine, agents)
                    recorder.header(provenance.header("handoff", options.seed, options.data(), found))
                _one_boot(options, (boot, backend), machine, agents, recorder, phases)
    return read(recorder.path)


def in_turns(options: Options) -> list[str]:
    """The backend of each machine that is booted; every other boot has them the other way round."""
    return [each for boot in range(options.boots) for each in options.backend[:: -1 if boot % 2 else 1]]


@contextmanager
def copies(count: int, phases: Phases) -> Iterator[list[Path]]:
    """So many disks with a Debian that has never booted."""
    with TemporaryDirectory(prefix="multiroot-bench-") as folder:
        made = [Path(folder) / f"{number}.raw" for number in range(count)]
        for disk in made:
            built = disk_image.build(IMAGE, labs.cache(phases)) / disk_image.DISK
            disk_image.copy_to(built, disk, phases)
        yield made


def _one_boot(
    options: Options,
    which: tuple[int, str],
    machine: Lab,
    agents: Agents,
    recorder: Recorder,
    phases: Phases,
) -> None:
    """`which` machine: its number and its backend."""
    boot, backend = which
    kernel = labs.kernel_name(options.lab.kernels[0] if options.lab.kernels else options.lab.kernel)
    if options.fresh:
        pool = Pool(machine, agents, phases.publish)
        definitions = definitions_of(options, options.kinds()[0], 1, iter(pmem(machine)))
        tracers = [None, Tracer(machine, agents, ROOTS, definitions[0].name)] if options.traced else [None]
        for tracer in tracers:
            ways = [
                way(agents, pool, definitions, kernel, phases.publish, tracer) for way in (Updated, Launched)
            ]
            rounds = max(1, options.fresh // 2) if tracer else options.fresh
            interleave(ways, rounds, options.seed + boot, recorder, phases)
        return
    if OURS in options.contenders:
        words = Backend(backend).appended("")
        launched = launch.launch(machine, agents, kernel, phases.publish, words)
        recorder.sample(replace(launched, round=boot))
        recorder.sample(replace(compare_clocks(agents), round=boot))
    contenders = make(options, backend, machine, agents, phases.publish)
    interleave(contenders, options.rounds, options.seed + boot, recorder, phases)
    if KEXEC in options.contenders:
        # Last, for it takes the kernel away; alone, for it takes the new root's CPUs too.
        if OURS in options.contenders:
            agents.release(phases.publish)
        vm = SameKernelVm(machine, name="carried", **definition_fields(options, options.kinds()[0]))
        last = KexecPmem(machine, agents, vm, kernel)
        interleave([last], 1, options.seed + boot, recorder, phases)


def compare_clocks(agents: Agents) -> Sample:
    """How far the roots' TSC clocks are apart, which must be one: moments in both are compared."""
    old, new = agents.clock("old"), agents.clock("new")
    apart, bound = new.ns - old.ns, old.error_ns + new.error_ns
    return Sample(CLOCKS, 0, {"apart_us": apart / 1e3, "bound_us": bound / 1e3})


def make(
    options: Options, backend: str, machine: Lab, agents: Agents, show: Callable[..., None]
) -> list[Contender]:
    """The contenders that were asked for, with each kind of VM."""
    pool = Pool(machine, agents, show)
    made: list[Contender] = []
    disks = iter(pmem(machine))
    for number, kind in enumerate(options.kinds(backend), 1):
        fields = definition_fields(options, kind)
        if OURS in options.contenders:
            definitions = definitions_of(options, kind, number, disks)
            made.append(MultiRoot(variant_name(OURS, kind.label), pool, definitions))
            if options.traced:
                made.append(Traced(machine, agents, pool, definitions[:1], kind.label))
        shared = SameKernelVm(machine, name=f"baseline{number}", **with_disk(fields, kind, disks))
        made += [SameKernel(way, shared, kind.label) for way in SAME_KERNEL if way in options.contenders]
        if options.traced and IN_PLACE in options.contenders:
            made.append(TracedInPlace(machine, agents, shared, kind.label))
        for way in OF_ITS_OWN:
            if way in options.contenders:
                words = [kind.machine, *([cpr.MACHINE_OPTION] if way in CPR else [])]
                changed = {"name": f"{way}{number}", "machine": ",".join(words), "way": way}
                made.append(SameKernel(way, SameKernelVm(machine, **{**fields, **changed}), kind.label))
    return made


def definitions_of(
    options: Options, kind: Kind, number: int, disks: Iterator[str]
) -> list[vm_pb2.VmDefinition]:
    """Our VMs of one kind, which is the `number`th."""
    fields = definition_fields(options, kind)
    return [
        vm_pb2.VmDefinition(name=f"vm{number}-{each + 1}", guest="ticker", **with_disk(fields, kind, disks))
        for each in range(options.vms)
    ]


def with_disk(fields: dict[str, Any], kind: Kind, disks: Iterator[str]) -> dict[str, Any]:
    """The fields of one VM of this kind, with the next of the disks if it has one."""
    return {**fields, "disks": [{"source": next(disks)}]} if kind.guest == workload.DEBIAN else fields


def definition_fields(options: Options, kind: Kind) -> dict[str, Any]:
    """What every contender's VM of this kind has in common."""
    common = {"ram_bytes": kind.ram, "cpus": 1, "machine": kind.machine, "firmware": kind.firmware}
    if kind.guest == workload.DEBIAN:
        return {**common, "user_data": workload.user_data(options.tick)}
    return {**common, "append": workload.words(period_ms=options.tick, dirty=options.dirty)}
