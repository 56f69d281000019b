# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VMX machine boots: a tree with Bochs and GRUB, a kernel, a system image, a disc.

QEMU's software emulation has no VMX, Bochs has. It is slower, so everything is as small as can be: the image
has no QEMU in it, and modules have no signatures to be checked. It has no NVDIMM either: the image comes on a
disk, and the first root copies it to persistent memory (`qemu-lab/vmx/first`).

A machine that is `whole` has what the other lab's machines have, and an arena: agents run there, and VMs.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.kexec.cpio import Archive, behind
from multiroot.lab import build, guests, image, initramfs, kernels, modules, paths, pylayer, recipes, roots
from multiroot.lab.artifacts import Artifact, digest_tree
from multiroot.lab.cache import Cache
from multiroot.lab.kernels import Kernel
from multiroot.lab.layout import SECTION, Range, low_reserved
from multiroot.units import MIB

KERNEL = "6.12"
DISC = "disc.iso"
# Of the old root, and for roots that it starts: an emulated CPU spends seconds on these.
FASTER = ("mitigations=off", "init_on_alloc=0")
# Behind a module: its signature, struct module_signature with that one's length at its end, the mark (kernel:
# include/linux/module_signature.h).
_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_STRUCT = 12
_GRUB_MODULES = "linux iso9660 biosdisk serial terminal normal boot configfile search search_fs_file"
_OLD_MEMORY = 640 * MIB
_CARVE = 640 * MIB
_ARENA = 3 * SECTION
# One instruction is 1/ips s for who runs there. Agents' limits are made for CPUs that do more in a second.
_IPS, _IPS_WHOLE = 50_000_000, 200_000_000
_KEEP = 3
_PYTHON = ("cffi", "click", "rich")  # of our dependencies, what `multiroot kexec` imports


@dataclass(frozen=True)
class Layout:
    """Physical memory: the old root's, the carve, the copy of the image, the arena of a whole machine, and
    the rest, which is the old root's again. The firmware keeps its tables at the end.
    """

    carve: Range
    image: Range
    ram: int
    arena: Range | None = None

    @classmethod
    def of(cls, size: int, *, whole: bool = False) -> Layout:
        """For a system image of `size` bytes."""
        carve = Range(_OLD_MEMORY, _CARVE)
        copy = Range(carve.end, -(-size // SECTION) * SECTION)
        if not whole:
            return cls(carve, copy, copy.end + 2 * SECTION)
        # Persistent memory that touches other is one with it for the kernel.
        arena = Range(copy.end + SECTION, _ARENA)
        return cls(carve, copy, arena.end + SECTION, arena)

    def cmdline(self) -> list[str]:
        """Parameters of the old root's kernel."""
        low = low_reserved()
        words = [
            f"memmap={low.size:#x}${low.start:#x}",
            f"memmap={self.carve.size:#x}${self.carve.start:#x}",
            f"memmap={self.image.size:#x}!{self.image.start:#x}",
        ]
        return [*words, f"memmap={self.arena.size:#x}!{self.arena.start:#x}"] if self.arena else words


@dataclass(frozen=True)
class VmxParts:
    """A VMX machine's files: the tree with the emulator, the disc, the image; its memory; and how many
    instructions a CPU does in a second of its clock.
    """

    tree: Path
    disc: Path
    image: Path
    layout: Layout
    ips: int


def prepare(cache: Cache, *, whole: bool = False) -> VmxParts:
    """Build what is missing."""
    emulator = build.emulator_artifact()
    recipe = recipes.roots()
    wanted = next(each for each in recipes.kernels().kernel if each.name == KERNEL)
    root = kernels.root_artifact(wanted, recipe.for_kernel(wanted.flavour))
    debian = kernels.opened(KERNEL, kernels.debian_artifact(KERNEL, root, emulator, cache), cache)
    stripped = kernels.opened(KERNEL, _kernel_artifact(debian, emulator, cache), cache)
    module = kernels.module_artifact(KERNEL, root, cache)

    def parts_of(kernel: Kernel) -> image.KernelParts:
        return image.KernelParts(
            kernel,
            initramfs.artifact(kernel, emulator, cache),
            kernels.modules_artifact(kernel, module, emulator, cache),
        )

    if whole:
        system = _whole_image_artifact(parts_of(debian), emulator, cache)
    else:
        system = _image_artifact(parts_of(stripped), emulator, cache)
    file = cache.ensure(system) / image.FILE
    layout = Layout.of(file.stat().st_size, whole=whole)
    disc = _disc_artifact(parts_of(stripped), emulator, layout, cache)
    ips = _IPS_WHOLE if whole else _IPS
    found = VmxParts(_tree(cache), cache.ensure(disc) / DISC, file, layout, ips)
    for each in (system, disc):
        cache.touch(each)
        cache.prune(each.name, _KEEP)
    return found


def forget_roots(cache: Cache) -> None:
    """Drop the Debian trees, so that the next `prepare` takes the archive's newest packages."""
    for each in (_emulator_root(), _system_root()):
        cache.forget(each)


def _emulator_root() -> Artifact:
    return roots.artifact("vmx", recipes.roots().vmx)


def _system_root() -> Artifact:
    return roots.artifact("vmx-system", recipes.roots().vmx_system)


def _tree(cache: Cache) -> Path:
    return cache.ensure(_emulator_root()) / roots.TREE


def unsigned(module: bytes) -> bytes:
    """A module without the signature behind it: the kernel loads it and taints itself."""
    if not module.endswith(_SIGNED):
        return module
    head = module.removesuffix(_SIGNED)
    return head[: -(_SIGNATURE_STRUCT + int.from_bytes(head[-4:], "big"))]


def _kernel_artifact(kernel: Kernel, emulator: Artifact, cache: Cache) -> Artifact:
    """The kernel with no more modules than roots load, these without signatures."""
    lists = [paths.recipes_dir() / name for name in ("initramfs/modules", "image/modules", "vmx/modules")]
    wanted = [word for path in lists for word in modules.words(path)]

    def make(out: Path) -> None:
        tools = cache.ensure(emulator) / roots.TREE
        for name in ("vmlinuz", "config", "release"):
            shutil.copy(kernel.folder / name, out / name)
        folder = out / "lib/modules" / kernel.release
        for path in modules.load_order(kernel.modules, wanted):
            staged = folder / path.relative_to(kernel.modules).with_name(modules.plain_name(path))
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(unsigned(modules.read_module(path, roots.loader_argv(tools, "bin/zstd"))))
        for path in kernel.modules.glob("modules.builtin*"):
            shutil.copy(path, folder)
        proc.run([*roots.loader_argv(tools, "sbin/depmod"), "-b", out, kernel.release], log=out / "build.log")

    inputs = {"kernel": kernel.artifact.digest, "emulator": emulator.digest, "wanted": " ".join(wanted)}
    return Artifact("vmx-kernel", inputs, make)


def _image_artifact(kernel: image.KernelParts, emulator: Artifact, cache: Cache) -> Artifact:
    system = _system_root()
    python = [
        pylayer.dependencies_artifact(system, cache, _PYTHON),
        pylayer.extension_artifact(),
        pylayer.package_artifact(system, cache),
    ]
    spinner = guests.program_artifact(paths.recipes_dir() / "vmx/spinner.c", emulator, cache)
    parts = image.Parts(emulator, system, python, [spinner], [], [kernel], agent=False)
    return image.artifact(parts, cache, "vmx-image", compress=True)


def _whole_image_artifact(kernel: image.KernelParts, emulator: Artifact, cache: Cache) -> Artifact:
    """What roots of the other lab have, with this one kernel."""
    system = roots.artifact("system", recipes.roots().system)
    python = [
        pylayer.dependencies_artifact(system, cache),
        pylayer.extension_artifact(),
        pylayer.package_artifact(system, cache),
    ]
    programs = [
        guests.program_artifact(paths.recipes_dir() / f"image/{each}.c", emulator, cache)
        for each in ("execd", "kvmkeys")
    ]
    guest = guests.ticker_artifact(guests.TICKER, kernel.kernel, emulator, cache)
    parts = image.Parts(emulator, system, python, programs, [guest], [kernel])
    return image.artifact(parts, cache, "vmx-whole", compress=True)


def _disc_artifact(parts: image.KernelParts, emulator: Artifact, layout: Layout, cache: Cache) -> Artifact:
    """A CD with GRUB, the kernel and the first root's initrd, made by grub-mkrescue in the tree."""
    folder = paths.recipes_dir() / "vmx"
    init = ["rdinit=/first", *([] if layout.arena else ["init=/usr/lib/multiroot/bare"])]
    common = ["console=ttyS1,115200", "tsc=reliable", "no_ipi_broadcast=1", *FASTER]
    # GRUB takes "$" for a variable.
    line = " ".join([*common, *init, *layout.cmdline()]).replace("$", r"\$")
    argv = ["grub-mkrescue", "--compress=no", "--fonts=", "--locales=", "--themes="]

    def make(out: Path) -> None:
        tree = _tree(cache)
        inside = Path("/tmp") / out.name
        stage = tree / inside.relative_to("/")
        shutil.rmtree(stage, ignore_errors=True)
        boot = stage / "iso/boot"
        (boot / "grub").mkdir(parents=True)
        shutil.copy(parts.kernel.vmlinuz, boot / "vmlinuz")
        (boot / "initrd").write_bytes(_initrd(parts, emulator, cache))
        (boot / "grub/grub.cfg").write_text((folder / "grub.cfg").read_text().replace("@CMDLINE@", line))
        options = [f"--install-modules={_GRUB_MODULES}", "-o", str(inside / DISC), str(inside / "iso")]
        roots.chroot_run(tree, [*argv, *options], log=out / "build.log")
        shutil.move(stage / DISC, out / DISC)
        shutil.rmtree(stage)

    inputs = {
        "tree": _emulator_root().digest,
        "kernel": parts.kernel.artifact.digest,
        "initramfs": parts.initramfs.digest,
        "recipe": digest_tree(folder),
        "cmdline": line,
        "grub": " ".join([*argv, _GRUB_MODULES]),
    }
    return Artifact("vmx-disc-whole" if layout.arena else "vmx-disc", inputs, make)


def _initrd(parts: image.KernelParts, emulator: Artifact, cache: Cache) -> bytes:
    """The initrd of every root, with what the first one needs on this machine unpacked over it."""
    folder = paths.recipes_dir() / "vmx"
    archive = Archive()
    archive.file("first", (folder / "first").read_bytes(), 0o755)
    wanted = [*modules.words(folder / "modules"), *modules.words(paths.recipes_dir() / "initramfs/modules")]
    initramfs.add_modules(archive, parts.kernel, wanted, cache.ensure(emulator) / roots.TREE)
    return behind((cache.ensure(parts.initramfs) / "initrd").read_bytes(), archive.finish())
