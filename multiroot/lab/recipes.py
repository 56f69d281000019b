# SPDX-License-Identifier: GPL-2.0-or-later
"""What `qemu-lab/*.toml` asks for, validated; a wrong file gives one line naming the file and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from multiroot import toml_files
from multiroot.errors import BadRequestError, MultirootError
from multiroot.lab import model_errors, paths
from multiroot.units import parse_cpu_list, parse_size


def _size(value: object) -> object:
    try:
        return parse_size(value) if isinstance(value, str) else value
    except MultirootError as error:
        raise ValueError(error.message) from error


def _cpus(value: object) -> object:
    try:
        return parse_cpu_list(value) if isinstance(value, str) else value
    except MultirootError as error:
        raise ValueError(error.message) from error


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
CpuList = Annotated[tuple[int, ...], BeforeValidator(_cpus), Field(min_length=1)]


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RootRecipe(Recipe):
    """A Debian tree made by mmdebstrap; `hooks` are programs in qemu-lab/roots run with the tree as
    argument.
    """

    suite: str
    packages: tuple[str, ...]
    backports: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()  # files not to unpack


class RootRecipes(Recipe):
    emulator: RootRecipe
    system: RootRecipe
    kernel: RootRecipe
    full_kernel: RootRecipe
    rt_kernel: RootRecipe
    checkpatch: RootRecipe
    vmx: RootRecipe
    vmx_system: RootRecipe
    workstation: RootRecipe
    disk_tools: RootRecipe
    iscsi_server: RootRecipe

    def for_kernel(self, flavour: str) -> RootRecipe:
        return {"full": self.full_kernel, "rt": self.rt_kernel}.get(flavour, self.kernel)


class KernelRecipe(Recipe):
    """One of Debian's kernels; with `on_demand` it is built only for those who name it."""

    name: str = Field(pattern=r"^[0-9][0-9a-z.-]*$")
    suite: str
    backports: bool = False
    flavour: Literal["cloud", "full", "rt"] = "cloud"
    on_demand: bool = False
    guest: str = ""  # name of a guest image that runs it, beside the one that `guest` of the file asks for


class BuiltRecipe(Recipe):
    """A kernel that is built of a source, when somebody names it first: see `multiroot kernel build`."""

    name: str = Field(pattern=r"^[0-9][0-9a-z.-]*$")
    source: str
    debug: tuple[str, ...] = ()


class KernelRecipes(Recipe):
    """The lab's kernels, oldest first, and those that are built of a source."""

    guest: str
    kernel: tuple[KernelRecipe, ...] = Field(min_length=1)
    built: tuple[BuiltRecipe, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> KernelRecipes:
        names = [kernel.name for kernel in self.kernel]
        every = [*names, *(each.name for each in self.built)]
        if len(set(every)) != len(every):
            raise ValueError("two kernels have the same name")
        if self.guest not in names:
            raise ValueError(f"guest kernel {self.guest} is not among {', '.join(names)}")
        return self


class DeviceRecipe(Recipe):
    """A PCI device behind a root port of its own: bus 1 for the first one, and so on; with `second_bridge`
    behind a host bridge beside the usual one.

    `model` is QEMU's, with options behind commas; a network card is connected to a socket of the lab's, a
    disk is a file of the size given, with a marker in its first sector.
    """

    model: str
    network: bool = False
    disk: Size | None = None
    second_bridge: bool = False


class MachineRecipe(Recipe):
    """A lab machine (`qemu-lab/machines/NAME.toml`). Sizes in bytes, written like "1G"."""

    cpus: int = Field(ge=2, le=64)
    old_cpus: CpuList  # the rest is for the new root
    old_memory: Size  # at least; what is left over by alignment goes to the old root too
    arena_slack: (
        Size  # arena beyond the memory of the virtual machines: superblock, handoff records, alignment
    )
    vms: int = Field(ge=1, le=16)
    vm_memory: Size
    carve: Size
    carve_at_boot: bool  # by memmap=; else the carve is movable memory, to be offlined at run time
    sparse: bool = False  # more memory than the workstation has; it must be known that most is never written
    low_reserved: bool = True  # keep ledger and low window out of the old root's allocator
    cmdline: tuple[str, ...] = ()
    iommu: str = ""  # options of an emulated IOMMU; none without
    iommu_vendor: Literal["intel", "amd"] = "intel"
    without: tuple[Literal["hpet", "pit", "i8042"], ...] = ()  # what most machines have
    nodes: int = Field(ge=1, le=2, default=1)  # CPUs and memory are shared out between so many NUMA nodes
    device: tuple[DeviceRecipe, ...] = ()

    @model_validator(mode="after")
    def _cpus(self) -> MachineRecipe:
        if 0 not in self.old_cpus:
            raise ValueError("the old root must keep CPU 0, the boot CPU")
        if max(self.old_cpus) >= self.cpus or len(self.old_cpus) == self.cpus:
            raise ValueError(f"old_cpus must leave some of the {self.cpus} CPUs to the new root")
        return self

    @model_validator(mode="after")
    def _one_memory(self) -> MachineRecipe:
        if self.sparse and self.nodes > 1:
            raise ValueError("sparse memory is not shared out between nodes")
        return self


class WorkstationRecipe(Recipe):
    """An emulated workstation that runs the lab under its own KVM (`qemu-lab/workstation/machine.toml`).

    `kernel` is one of the lab's; `cmdline` goes to it beside the console.
    """

    kernel: str
    cpus: int = Field(ge=2, le=64)
    memory: Size
    cmdline: tuple[str, ...] = ()


class DiskImageRecipe(Recipe):
    """A guest's disk (`qemu-lab/images/NAME.toml`), of `size` bytes. `root` is the Debian tree on it."""

    size: Size
    root: RootRecipe


Model = TypeVar("Model", bound=Recipe)


def read(path: Path, model: type[Model], *, overrides: dict[str, object] | None = None) -> Model:
    """Parse and validate one recipe file; `overrides` beat its fields. Raises BadRequestError."""
    try:
        data = toml_files.read(path)
    except FileNotFoundError as error:
        raise BadRequestError(f"no recipe {path.name}", f"looked in {path.parent}") from error
    try:
        return model.model_validate({**data, **(overrides or {})})
    except ValidationError as error:
        where, kind, told = model_errors.first(error)
        raise BadRequestError(
            f"{path}: {told}",
            _names(model) if kind in ("extra_forbidden", "missing") and len(where) == 1 else "",
        ) from error


def _names(model: type[Recipe]) -> str:
    names = [each.alias or name for name, each in model.model_fields.items()]
    needed = [each.alias or name for name, each in model.model_fields.items() if each.is_required()]
    return f"there is {', '.join(names)}; needed: {', '.join(needed)}"


def kernels() -> KernelRecipes:
    return read(paths.recipes_dir() / "kernels.toml", KernelRecipes)


def roots() -> RootRecipes:
    return read(paths.recipes_dir() / "roots.toml", RootRecipes)


def workstation() -> WorkstationRecipe:
    return read(paths.recipes_dir() / "workstation/machine.toml", WorkstationRecipe)


def disk_image_names() -> list[str]:
    """The recipes in qemu-lab/images."""
    return sorted(path.stem for path in (paths.recipes_dir() / "images").glob("*.toml"))


def disk_image(name: str) -> DiskImageRecipe:
    """The recipe `name` of qemu-lab/images. Raises BadRequestError."""
    known = disk_image_names()
    if name not in known:
        raise BadRequestError(f"no disk image called {name!r}", f"there is {', '.join(known)}")
    return read(paths.recipes_dir() / f"images/{name}.toml", DiskImageRecipe)


def machine(name: str, overrides: dict[str, object] | None = None) -> MachineRecipe:
    """The recipe `name` of qemu-lab/machines, or, for a path or a name in .toml, that file."""
    return read(machine_file(name), MachineRecipe, overrides=overrides)


def machine_file(name: str) -> Path:
    """Where that is. Raises BadRequestError for a name that nobody knows."""
    if "/" in name or name.endswith(".toml"):
        return Path(name)
    folder = paths.recipes_dir() / "machines"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        hint = f"there is {', '.join(known)}, or give the path of a .toml file"
        raise BadRequestError(f"no machine called {name!r}", hint)
    return folder / f"{name}.toml"
