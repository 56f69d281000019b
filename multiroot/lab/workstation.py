# SPDX-License-Identifier: GPL-2.0-or-later
"""An AMD workstation with KVM, as a machine of the emulator's, in which the project itself is at work.

TCG emulates SVM, so a kernel in it has /dev/kvm, and the lab machine runs under that with `--accel kvm`. The
workstation boots the lab's kernel and initramfs from an image of its own, in which are the project's source,
its Python, and the lab as it was built here. There it has no network, and builds nothing: of what only a
build would need, the cache has the names.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch
from multiroot.lab import build, host, image, paths, pylayer, recipes, roots
from multiroot.lab.artifacts import Artifact, digest_tree, source_files
from multiroot.lab.build import Built
from multiroot.lab.cache import Cache
from multiroot.lab.machine import Options, emulator_argv, image_options
from multiroot.lab.recipes import WorkstationRecipe
from multiroot.phases import Phases
from multiroot.units import GIB, MIB
from multiroot.vm.qemu.options import option

CACHE = "root/.cache/multiroot/lab"  # of its user, in the image
NAME = "workstation"
_KEEP = 2
# What tests inside are run from; the package comes from artifacts of its own.
_SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "csrc/**/*",
    "qemu-lab/**/*",
    "tests/lab/**/*",
)


@dataclass(frozen=True)
class WorkstationParts:
    """A workstation that is ready to run."""

    recipe: WorkstationRecipe
    built: Built
    image: Path


class Noted(Cache):
    """A cache that notes what it is asked for."""

    def __init__(self, root: Path, phases: Phases) -> None:
        super().__init__(root, phases)
        self.noted: dict[str, Artifact] = {}

    def path(self, artifact: Artifact) -> Path:
        self.noted[artifact.key] = artifact
        return super().path(artifact)

    def named(self, name: str) -> Path:
        """The folder of the artifact with this name."""
        return next(self.root / key for key, each in self.noted.items() if each.name == name)


def prepare(cache: Cache) -> WorkstationParts:
    """Build what is missing. Raises BadRequestError where the workstation would not fit."""
    recipe = recipes.workstation()
    host.check_memory(recipe.memory)
    build.build(cache)
    # Once more, with everything there: so it will be asked for inside.
    noted = Noted(cache.root, cache.phases)
    built = build.build(noted)
    whole = _artifact(recipe, built, noted)
    folder = cache.ensure(whole)
    cache.touch(whole)
    cache.prune(whole.name, _KEEP)
    return WorkstationParts(recipe, built, folder / image.FILE)


def argv(parts: WorkstationParts, arguments: Path, console: Path, verdicts: Path) -> list[str]:
    """The QEMU command. `arguments` is a file with pytest's, one a line. QEMU connects to the sockets
    `console` and `verdicts`.
    """
    of_qemu = arch.current().lab
    kernel = parts.built.kernels[parts.recipe.kernel]
    size = parts.image.stat().st_size
    # QEMU wants room to align the slot to 1 GiB.
    most = parts.recipe.memory + -(-size // GIB) * GIB + GIB
    memory: Options = {"slots": 1, "maxmem": f"{most // MIB}M"}
    line = f"console={arch.current().serial}0,115200 {' '.join(parts.recipe.cmdline)}"
    options = [
        ("-name", f"multiroot-{NAME}"),
        ("-machine", option(of_qemu.machine_type, {"nvdimm": True})),
        ("-accel", option("tcg", {"thread": "multi"})),
        ("-cpu", of_qemu.cpu),
        ("-smp", str(parts.recipe.cpus)),
        ("-m", option(f"{parts.recipe.memory // MIB}M", memory)),
        *image_options(parts.image, size),
        ("-kernel", str(kernel.vmlinuz)),
        ("-initrd", str(kernel.initrd)),
        ("-append", line),
        ("-fw_cfg", option("", {"name": "opt/multiroot/arguments", "file": arguments})),
        ("-display", "none"),
    ]
    for name, path in (("console", console), ("verdicts", verdicts)):
        options += [
            ("-chardev", option("socket", {"id": name, "path": path})),
            ("-serial", f"chardev:{name}"),
        ]
    words = [word for pair in options for word in pair]
    return [*emulator_argv(parts.built.emulator, parts.built.emulator_mend), *words]


def _artifact(recipe: WorkstationRecipe, built: Built, noted: Noted) -> Artifact:
    """The workstation's disk, an image like that of a root."""
    source = paths.source_dir()
    system = roots.artifact("system", recipes.roots().system)
    tree = roots.artifact(NAME, recipes.roots().workstation)
    python = [
        pylayer.workstation_artifact(system, noted),
        pylayer.extension_artifact(),
        pylayer.package_artifact(system, noted),
    ]
    lab = sorted(noted.noted)
    modules = noted.named(f"modules-{recipe.kernel}")
    keys = noted.named("program-kvmkeys") / "kvmkeys"

    def make(out: Path) -> None:
        stage = out / "stage"
        image.link_tree(noted.ensure(tree) / roots.TREE, stage)
        for part in python:
            image.link_tree(noted.ensure(part) / pylayer.PREFIX, stage / pylayer.PREFIX)
        for path in source_files(source, _SOURCES):
            image.link(path, stage / pylayer.PREFIX / path.relative_to(source), copy=True)
        image.link_tree(modules / "lib/modules", stage / "usr/lib/modules")
        image.link(keys, stage / "usr/lib/multiroot/kvmkeys")
        stage_lab(stage / CACHE, lab, built, noted.root)
        image.link(paths.recipes_dir() / "workstation/init", stage / "usr/sbin/init", copy=True)
        image.tidy(stage)
        image.make_erofs(out, stage, built.emulator)
        shutil.rmtree(stage)

    inputs = {
        "tree": tree.digest,
        "python": " ".join(part.digest for part in python),
        "source": digest_tree(source, _SOURCES),
        "lab": " ".join(lab),
    }
    return Artifact(NAME, inputs, make)


def stage_lab(target: Path, keys: Sequence[str], built: Built, cache: Path) -> None:
    """A cache with all artifacts' folders, and in them what a machine is made of."""
    for key in (*keys, "locks"):
        (target / key).mkdir(parents=True)
    files = [built.image, built.emulator_mend]
    for kernel in built.kernels.values():
        beside = [kernel.vmlinuz.with_name(name) for name in ("release", "config")]
        files += [kernel.vmlinuz, *beside, kernel.initrd]
    for path in files:
        image.link(path, target / path.relative_to(cache))
    image.link_tree(built.emulator, target / built.emulator.relative_to(cache))
