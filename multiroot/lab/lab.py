# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab as others use it: say what you want, get a machine that runs, run commands in its roots."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import BadRequestError, PeerLostError
from multiroot.kexec.target import target
from multiroot.lab import (
    accel,
    boot,
    build,
    execution,
    host,
    kernels,
    lab_disks,
    layout,
    own_kernel,
    paths,
    recipes,
    roots,
    source_kernels,
    state,
)
from multiroot.lab.build import BootKernel, Built
from multiroot.lab.cache import Cache
from multiroot.lab.execution import Channel, DirectChannel, RelayChannel, Result
from multiroot.lab.lab_disks import LabDisk
from multiroot.lab.layout import Layout
from multiroot.lab.machine import Machine, MachineDevice
from multiroot.lab.own_kernel import KernelSource
from multiroot.lab.recipes import MachineRecipe
from multiroot.lab.state import LabState
from multiroot.lab.trouble import explained
from multiroot.lab.watchdog import Limits
from multiroot.net import namespace
from multiroot.net.addresses import MAX_ROOT, root_address
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc.client import Address
from multiroot.units import format_size
from multiroot.vm.definition import check_ram


@dataclass(frozen=True)
class Options:
    """What a person may choose; None leaves it to the machine's recipe. Sizes in bytes.

    `machine` names a recipe in qemu-lab/machines or is the path of one. `accelerator` is "kvm" or "tcg"; None
    takes KVM where it works.
    `kernel` and each of `kernels` is a name from qemu-lab/kernels.toml, "newest" or the path of a
    kernel file; `kernels` are those that must be in the image too. `modules` is where the modules of
    kernels given by path are. `guest_kernels` are kernels that guests are to be made of, beside the lab's
    own guests. `disks` are names of images, or files, that all roots see as persistent memory
    (`lab_disks`). A machine that is to `hold` is left paused where it resets or powers off. `append` is
    more of its kernel's command line. A boot that hangs is tried again until there were so many `attempts`.
    """

    name: str = "default"
    machine: str = "default"
    kernel: str = "6.12"
    kernels: tuple[str, ...] = ()
    modules: Path | None = None
    guest_kernels: tuple[str, ...] = ()
    vms: int | None = None
    vm_memory: int | None = None
    carve: int | None = None
    cpus: int | None = None
    hold: bool = False
    accelerator: str | None = None
    disks: tuple[str, ...] = ()
    append: str = ""
    attempts: int = boot.ATTEMPTS

    @property
    def all_kernels(self) -> tuple[str, ...]:
        """Every kernel that is named."""
        return (self.kernel, *self.kernels, *self.guest_kernels)


def cache(phases: Phases) -> Cache:
    """The user's cache of lab artifacts."""
    return Cache(paths.cache_dir() / "lab", phases)


def own_kernels(options: Options) -> list[KernelSource]:
    """The kernels given by path; raises BadRequestError for those that cannot be used."""
    given = dict.fromkeys(name for name in options.all_kernels if is_path(name))
    found: dict[str, KernelSource] = {}
    for source in (own(name, options.modules) for name in given):
        other = found.setdefault(source.name, source)
        if other.stamp() != source.stamp():
            raise BadRequestError(
                f"{other.path} and {source.path} are one kernel image with different modules",
                "name one of them",
            )
    return list(found.values())


def own(text: str, modules: Path | None = None) -> KernelSource:
    """The kernel that a path names, or the name of one that is built of a source. Raises BadRequestError."""
    return own_kernel.locate(_place(text), modules, _unpack)


def _place(text: str) -> Path:
    recipe = source_kernels.find(text)
    return source_kernels.place(recipe) if recipe else Path(text)


def _unpack(package: Path, sha256: str) -> Path:
    return cache(Phases("workstation")).ensure(kernels.package_artifact(package, sha256))


def is_path(text: str) -> bool:
    """Whether a kernel is given by path, and not by name; names of those that are built stand for paths."""
    return (
        "/" in text or text.startswith("~") or text.endswith(".deb") or source_kernels.find(text) is not None
    )


def kernel_name(text: str) -> str:
    """What a kernel given as name, "newest" or path is called in the image (/usr/lib/multiroot/kernels)."""
    if is_path(text):
        return own_kernel.name_of(_place(text), _unpack)
    return recipes.kernels().kernel[-1].name if text == "newest" else text


def check_names(options: Options) -> None:
    """Raises BadRequestError for a kernel that is neither one of the lab's nor given by path."""
    kernels = recipes.kernels()
    known = [*(each.name for each in kernels.kernel), *(each.name for each in kernels.built)]
    for name in options.all_kernels:
        if not is_path(name) and kernel_name(name) not in known:
            there = ", ".join(known)
            here = f"; there is a file of that name: ./{name}" if Path(name).exists() else ""
            raise BadRequestError(
                f"no kernel called {name!r}", f"there is {there}, newest, or give a path{here}"
            )


def prepare(options: Options, phases: Phases) -> tuple[Machine, Built]:
    """Build what is missing and decide the machine; starts nothing."""
    check_names(options)
    recipe = chosen_recipe(options)
    if not recipe.sparse:
        host.check_memory(memory_layout(recipe, image=0).ram)
    artifacts = cache(phases)
    disks = lab_disks.choose(options.disks, options.name, artifacts)
    built = build.build(
        artifacts,
        own_kernels(options),
        [kernel_name(name) for name in options.all_kernels],
        [kernel_name(name) for name in options.guest_kernels],
    )
    check_carve([built.kernels[kernel_name(name)] for name in options.kernels], recipe)
    return decide(options, built, accel.choose(built, phases, options.accelerator), disks), built


def check_carve(wanted: Sequence[BootKernel], recipe: MachineRecipe) -> None:
    """Raises BadRequestError if one of the kernels does not come up in the carve of such a machine."""
    for kernel in wanted:
        image = target().read_image(kernel.vmlinuz.read_bytes())
        least = target().minimum_carve(image, kernel.initrd.stat().st_size)
        # A carve is whole sections.
        least = -(-least // layout.SECTION) * layout.SECTION
        if recipe.carve < least:
            raise BadRequestError(
                f"kernel {kernel.name} does not come up in a carve of {format_size(recipe.carve)}",
                f"{format_size(least)} will do: --carve, or `carve` of the machine's recipe",
            )


def chosen_recipe(options: Options) -> MachineRecipe:
    """The machine's recipe with what the options change of it. Raises BadRequestError."""
    chosen = {
        "vms": options.vms,
        "vm_memory": options.vm_memory,
        "carve": options.carve,
        "cpus": options.cpus,
    }
    recipe = recipes.machine(
        options.machine, {key: value for key, value in chosen.items() if value is not None}
    )
    check_ram(recipe.vm_memory)
    return recipe


def memory_layout(recipe: MachineRecipe, image: int, disks: Sequence[int] = ()) -> Layout:
    """Where the memory of such a machine lies, with a system image and disks of so many bytes."""
    return layout.lay_out(
        old_memory=recipe.old_memory,
        arena=layout.arena_size(recipe.vms, recipe.vm_memory, recipe.arena_slack),
        carve=recipe.carve,
        carve_reserved=recipe.carve_at_boot,
        image=image,
        disks=disks,
    )


def decide(options: Options, built: Built, accelerator: str, disks: tuple[LabDisk, ...] = ()) -> Machine:
    """The machine that the options ask for, on free ports. Raises BadRequestError."""
    recipe = chosen_recipe(options)
    kernel = built.kernels[kernel_name(options.kernel)]
    agent_port, exec_port = boot.free_ports()
    return Machine(
        name=options.name,
        kernel=kernel.name,
        release=kernel.release,
        vmlinuz=kernel.vmlinuz,
        initrd=kernel.initrd,
        image=built.image,
        emulator=built.emulator,
        emulator_mend=built.emulator_mend,
        accelerator=accelerator,
        cpus=recipe.cpus,
        old_cpus=recipe.old_cpus,
        vms=recipe.vms,
        vm_memory=recipe.vm_memory,
        layout=memory_layout(recipe, built.image.stat().st_size, [disk.size for disk in disks]),
        disks=disks,
        low_reserved=recipe.low_reserved,
        cmdline=(*recipe.cmdline, *options.append.split()),
        hold=options.hold,
        iommu=recipe.iommu,
        iommu_vendor=recipe.iommu_vendor,
        without=recipe.without,
        slowness=kernel.slowness,
        # On a busy workstation a kernel that measures is some percent wrong, and once it was by five times.
        tsc_khz=host.tsc_khz() if accelerator == accel.TCG else 0,
        nodes=recipe.nodes,
        sparse=recipe.sparse,
        devices=tuple(
            MachineDevice(each.model, each.network, each.disk or 0, each.second_bridge)
            for each in recipe.device
        ),
        agent_port=agent_port,
        exec_port=exec_port,
        state=state.folder(options.name),
    )


def tool(name: str, phases: Phases) -> list[str]:
    """Command prefix for a program of the emulator root (iasl, mkfs.erofs, depmod...), which is built
    when needed.
    """
    tree = cache(phases).ensure(build.emulator_artifact()) / roots.TREE
    folder = next((each for each in ("bin", "sbin") if (tree / "usr" / each / name).exists()), None)
    if not folder:
        raise BadRequestError(f"the lab's tools have no {name}", "add its package to qemu-lab/roots.toml")
    return roots.loader_argv(tree, f"{folder}/{name}")


def up(options: Options, phases: Phases) -> Lab:
    """Build what is missing, boot, wait until commands can be run and the old root's agent answers.

    Whatever goes wrong, no machine is left behind.
    """
    return start(*prepare(options, phases), phases, attempts=options.attempts)


def start(
    machine: Machine,
    built: Built,
    phases: Phases,
    *,
    attempts: int = boot.ATTEMPTS,
    limits: Limits | None = None,
) -> Lab:
    """The same for a machine that was prepared."""
    from multiroot.lab.agents import Agents

    limits = (limits or Limits()).of_slower(machine.slowness)
    started = Lab(boot.up(machine, built.image_digest, phases, limits=limits, attempts=attempts))
    try:
        with phases.phase(PhaseName.WAIT_FOR_AGENT), Agents(started.agent_address) as agents:
            agents.status(wait=True, slowness=machine.slowness)
    except BaseException:
        started.down()
        raise
    return started


def attach(name: str = "default") -> Lab:
    """A lab that runs already; raises BadRequestError when it does not."""
    return Lab(state.load_alive(name))


@dataclass(frozen=True)
class Lab:
    """A running lab machine."""

    state: LabState

    @property
    def agent_address(self) -> Address:
        """Where the old root's agent answers on this workstation."""
        return self.state.agent_address

    def channel(self, root: str = "old") -> Channel:
        """A fresh way to the exec service of a root: "old", "new" or its number. The caller closes it."""
        token = self.state.token
        direct = DirectChannel(self.state.machine.exec_port, token)
        number = "1" if root == "old" else self._new_root() if root == "new" else root
        if not number.isdecimal() or not 1 <= int(number) <= MAX_ROOT:
            raise BadRequestError(f"no root called {root!r}", "it is old, new or a number")
        return direct if number == "1" else RelayChannel(direct, root_address(int(number)), token)

    def guest_channel(self, address: str, token: str) -> Channel:
        """A fresh way to the exec service of a guest, in whatever root it runs. The caller closes it."""
        direct = DirectChannel(self.state.machine.exec_port, self.state.token)
        return RelayChannel(direct, address, token, within=namespace.EXEC)

    def _new_root(self) -> str:
        """Number of the old root's child, from its agent: every launch, even a failed one, takes a number."""
        from multiroot.rpc.client import connect
        from multiroot.rpc.status import translated
        from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

        with connect(self.agent_address) as channel, translated("the old root's agent"):
            status = root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)
        children = [peer.root for peer in status.peers if peer.role == root_pb2.PeerStatus.ROLE_CHILD]
        if not children:
            start = f"multiroot root launch --kernel {self.state.machine.kernel}"
            raise PeerLostError("there is no new root", f"start one: `{start}`")
        return str(children[0])

    def run(self, argv: Sequence[str], *, root: str = "old", timeout: float | None = 120.0) -> Result:
        """Run a command in a root to its end; its exit code is in the result."""
        with explained(self.state), closing(self.channel(root)) as channel:
            return execution.run(channel, argv, timeout=timeout)

    def down(self) -> None:
        boot.down(self.state)
