# SPDX-License-Identifier: GPL-2.0-or-later
"""The system image: one read-only EROFS file that every root of a lab machine runs from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.lab import paths, pylayer, roots
from multiroot.lab.artifacts import Artifact, digest_tree, source_files
from multiroot.lab.cache import Cache
from multiroot.lab.kernels import Kernel
from multiroot.units import HUGE_PAGE
from multiroot.vm.guests import NEEDS

# The nvdimm's size must be a multiple of this, and a root may want to map it with huge pages.
ALIGNMENT = HUGE_PAGE
FILE = "system.erofs"


@dataclass(frozen=True)
class KernelParts:
    """A kernel with what the lab made for it."""

    kernel: Kernel
    initramfs: Artifact
    modules: Artifact


@dataclass(frozen=True)
class Parts:
    """All that goes into an image."""

    emulator: Artifact
    system: Artifact
    python: Sequence[Artifact]  # trees for /opt/multiroot
    programs: Sequence[Artifact]  # for /usr/lib/multiroot, each called like its artifact without "program-"
    guests: Sequence[Artifact]  # each with vmlinuz and initrd, called like its artifact without "guest-"
    kernels: Sequence[KernelParts]
    agent: bool = True  # whether `python` has all that an agent imports


def artifact(parts: Parts, cache: Cache, name: str = "image", *, compress: bool = False) -> Artifact:
    """`system.erofs`, padded to ALIGNMENT; compressed for a machine to which it is far."""
    files = paths.recipes_dir() / "image/files"
    plain = [parts.emulator, parts.system, *parts.python, *parts.programs, *parts.guests]
    made = [part for each in parts.kernels for part in (each.kernel.artifact, each.initramfs, each.modules)]
    inputs = {each.name: each.digest for each in (*plain, *made)}
    inputs["kernels"] = " ".join(f"{each.kernel.name}={each.kernel.release}" for each in parts.kernels)
    inputs["files"] = digest_tree(files)
    options = ["-zlz4hc"] if compress else []
    if options:
        inputs["options"] = " ".join(options)

    def build(out: Path) -> None:
        stage = out / "stage"
        _stage(stage, parts, files, cache)
        if parts.agent:
            pylayer.compile_ahead(stage, out / "build.log")
        make_erofs(out, stage, cache.ensure(parts.emulator) / roots.TREE, options)
        shutil.rmtree(stage)

    return Artifact(name, inputs, build)


def _stage(stage: Path, parts: Parts, files: Path, cache: Cache) -> None:
    """Everything below one folder; hard links to the cache, so nothing here may be written in place."""
    link_tree(cache.ensure(parts.system) / roots.TREE, stage)
    for part in parts.python:
        link_tree(cache.ensure(part) / pylayer.PREFIX, stage / pylayer.PREFIX)
    ours = stage / "usr/lib/multiroot"
    for part in parts.programs:
        name = part.name.removeprefix("program-")
        link(cache.ensure(part) / name, ours / name)
    for part in parts.guests:
        for name in ("vmlinuz", "initrd", NEEDS):
            if (cache.ensure(part) / name).exists():
                link(cache.ensure(part) / name, ours / "guests" / part.name.removeprefix("guest-") / name)
    for each in parts.kernels:
        _stage_kernel(stage, each, cache)
    for path in source_files(files):
        link(path, stage / path.relative_to(files), copy=True)
    tidy(stage)


def _stage_kernel(stage: Path, parts: KernelParts, cache: Cache) -> None:
    folder = stage / "usr/lib/multiroot/kernels" / parts.kernel.name
    release = parts.kernel.release
    modules = cache.ensure(parts.modules) / "lib/modules" / release
    shared = stage / "usr/lib/modules" / release
    # Of several kernels of one release the first has its modules in the usual place. In roots of the others,
    # the initramfs puts those over it (qemu-lab/initramfs/init).
    link_tree(modules, folder / "modules" if shared.exists() else shared)
    for name in ("vmlinuz", "config", "release"):
        link(parts.kernel.folder / name, folder / name)
    link(cache.ensure(parts.initramfs) / "initrd", folder / "initrd")


def tidy(stage: Path) -> None:
    """Drop what no root needs; folders stay for what is mounted there."""
    for name in (
        "var/cache",
        "var/lib/apt",
        "var/lib/dpkg/info",
        "usr/share/doc",
        "usr/share/bash-completion",
    ):
        shutil.rmtree(stage / name, ignore_errors=True)
    for name in ("etc/hostname", "etc/resolv.conf"):
        (stage / name).unlink(missing_ok=True)
    shutil.rmtree(stage / "dev")
    for name in ("dev", "proc", "sys", "run", "tmp", "var/tmp", "root"):
        (stage / name).mkdir(parents=True, exist_ok=True)


def make_erofs(out: Path, stage: Path, tools: Path, options: Sequence[str] = ()) -> None:
    """`stage` as FILE in `out`, its size a multiple of ALIGNMENT; `tools` is the tree with the program."""
    image = out / FILE
    mkfs = roots.loader_argv(tools, "bin/mkfs.erofs")
    argv: list[str | Path] = [*mkfs, "-T0", "--all-root", "--quiet", *options, image, stage]
    proc.run(argv, log=out / "build.log", timeout=600)
    size = image.stat().st_size
    os.truncate(image, -(-size // ALIGNMENT) * ALIGNMENT)


def link_tree(source: Path, target: Path) -> None:
    """Hard links to all files of a folder that is in the cache."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=os.link, ignore=_special)


def _special(folder: str, names: list[str]) -> set[str]:
    """Device nodes and sockets: the root gets its own from devtmpfs."""
    entries = ((name, Path(folder, name)) for name in names)
    return {name for name, path in entries if not (path.is_symlink() or path.is_file() or path.is_dir())}


def link(source: Path, target: Path, *, copy: bool = False) -> None:
    """A hard link in place of whatever is there; a `copy` of a file that is not in the cache."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if copy:
        shutil.copy(source, target)
    else:
        os.link(source, target)
