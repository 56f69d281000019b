# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VMX machine boots from: its tree (Bochs and GRUB), the first root's initrd, the disc.

QEMU's software emulation has no VMX, Bochs has. It has no NVDIMM, though: the system image comes on a disk,
and the first root copies it to persistent memory (`qemu-lab/vmx/first`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from multiroot.kexec.cpio import Archive, behind
from multiroot.lab import build, initramfs, kernels, modules, paths, recipes, roots
from multiroot.lab.artifacts import Artifact, digest_tree
from multiroot.lab.build import Built
from multiroot.lab.cache import Cache
from multiroot.lab.kernels import Kernel
from multiroot.lab.layout import SECTION, Range, low_reserved
from multiroot.units import MIB

KERNEL = "6.12"
DISC = "disc.iso"
_GRUB_MODULES = "linux iso9660 biosdisk serial terminal normal boot configfile search search_fs_file"
_OLD_MEMORY = 640 * MIB
_CARVE = 640 * MIB


@dataclass(frozen=True)
class Layout:
    """Physical memory: the old root's, the carve, the copy of the image, and the rest, which is the old
    root's again. The firmware keeps its tables at the end.
    """

    carve: Range
    image: Range
    ram: int

    @classmethod
    def of(cls, image: int) -> Layout:
        """For a system image of so many bytes."""
        carve = Range(_OLD_MEMORY, _CARVE)
        copy = Range(carve.end, _up(image))
        return cls(carve, copy, copy.end + 2 * SECTION)

    def cmdline(self) -> list[str]:
        """Parameters of the old root's kernel."""
        low = low_reserved()
        return [
            f"memmap={low.size:#x}${low.start:#x}",
            f"memmap={self.carve.size:#x}${self.carve.start:#x}",
            f"memmap={self.image.size:#x}!{self.image.start:#x}",
        ]


def _up(size: int) -> int:
    return -(-size // SECTION) * SECTION


@dataclass(frozen=True)
class VmxParts:
    """A VMX machine's files: the tree with the emulator, the disc, the image; and its memory."""

    tree: Path
    disc: Path
    image: Path
    layout: Layout


def prepare(built: Built, cache: Cache) -> VmxParts:
    """Build what is missing for a machine that runs the image of `built`."""
    tree = cache.ensure(roots.artifact("vmx", recipes.roots().vmx)) / roots.TREE
    layout = Layout.of(built.image.stat().st_size)
    disc = cache.ensure(disc_artifact(layout, cache)) / DISC
    return VmxParts(tree, disc, built.image, layout)


def disc_artifact(layout: Layout, cache: Cache) -> Artifact:
    """A CD with GRUB, the kernel and the first root's initrd, made by grub-mkrescue in the tree."""
    folder = paths.recipes_dir() / "vmx"
    recipe = recipes.roots()
    tree = roots.artifact("vmx", recipe.vmx)
    emulator = build.emulator_artifact()
    wanted = next(each for each in recipes.kernels().kernel if each.name == KERNEL)
    root = kernels.root_artifact(wanted, recipe.for_kernel(wanted.flavour))
    kernel = kernels.opened(KERNEL, kernels.debian_artifact(KERNEL, root, emulator, cache), cache)
    base = initramfs.artifact(kernel, emulator, cache)
    words = [
        "console=ttyS0,115200",
        "tsc=reliable",
        "no_ipi_broadcast=1",
        "rdinit=/first",
        "init=/usr/lib/multiroot/bare",
        *layout.cmdline(),
    ]

    def make(out: Path) -> None:
        inside = Path("/tmp") / out.name
        stage = cache.ensure(tree) / roots.TREE / inside.relative_to("/")
        shutil.rmtree(stage, ignore_errors=True)
        boot = stage / "iso/boot"
        (boot / "grub").mkdir(parents=True)
        shutil.copy(kernel.vmlinuz, boot / "vmlinuz")
        (boot / "initrd").write_bytes(_initrd(kernel, cache.ensure(base) / "initrd", cache))
        # GRUB takes "$" for a variable.
        line = " ".join(words).replace("$", r"\$")
        config = (folder / "grub.cfg").read_text().replace("@CMDLINE@", line)
        (boot / "grub/grub.cfg").write_text(config)
        argv = ["grub-mkrescue", "-o", str(inside / DISC), str(inside / "iso"), "--compress=no", "--fonts="]
        options = ["--locales=", "--themes=", f"--install-modules={_GRUB_MODULES}"]
        roots.chroot_run(stage_tree(cache, tree), [*argv, *options], log=out / "build.log")
        shutil.move(stage / DISC, out / DISC)
        shutil.rmtree(stage)

    inputs = {
        "tree": tree.digest,
        "kernel": kernel.artifact.digest,
        "initramfs": base.digest,
        "recipe": digest_tree(folder),
        "cmdline": " ".join(words),
        "grub": _GRUB_MODULES,
    }
    return Artifact("vmx-disc", inputs, make)


def stage_tree(cache: Cache, tree: Artifact) -> Path:
    return cache.ensure(tree) / roots.TREE


def _initrd(kernel: Kernel, base: Path, cache: Cache) -> bytes:
    """The initrd of every root, with what the first one needs on this machine unpacked over it."""
    folder = paths.recipes_dir() / "vmx"
    archive = Archive()
    archive.file("first", (folder / "first").read_bytes(), 0o755)
    every = modules.words(paths.recipes_dir() / "initramfs/modules")
    tools = cache.ensure(build.emulator_artifact()) / roots.TREE
    initramfs.add_modules(archive, kernel, [*every, *modules.words(folder / "modules")], tools)
    return behind(base.read_bytes(), archive.finish())
