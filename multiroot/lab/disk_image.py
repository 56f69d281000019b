# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks for guests that boot by themselves, each made of a recipe in qemu-lab/images.

mmdebstrap makes the tree. What is in the folder of the recipe's name is put into a copy of it: `files/` as
they are, and then `configure` runs there. The disk is a raw file with holes and a GPT: a partition for the
GRUB that a BIOS starts, one for the GRUB that UEFI starts, and the root file system, which is the last so
that it can grow. All is written into the file; nothing is mounted. Kernel and initrd lie beside it for a
guest whose disk no firmware can read (persistent memory).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import BadRequestError, ConflictError
from multiroot.lab import grub, image_lock, paths, recipes, roots
from multiroot.lab.artifacts import Artifact, digest_tree, source_files
from multiroot.lab.cache import Cache
from multiroot.lab.fat import FatImage
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.units import KIB, MIB, format_size

DISK = "disk.raw"
KERNEL = "vmlinuz"
INITRD = "initrd"
CMDLINE = "cmdline"  # what that kernel needs to be told

_ROOT_MARK = "@ROOT@"  # in files, where the UUID of the root file system is to be
_MARKED = ("etc/fstab", "boot/grub/grub.cfg")
# Of mkfs.ext4. What the file does not hold yet is zero.
_ROOT_OPTIONS = ("-q", "-F", "-m", "1", "-L", "root")
_ROOT_EXTENDED = "assume_storage_prezeroed=1"
_KEEP = 2
_TIMEOUT_S = 600.0
# Types of partitions, as sgdisk has them.
_BIOS_BOOT_TYPE, _ESP_TYPE = "ef02", "ef00"
_LEAST = 1 << 30  # bytes; a Debian with a kernel is larger


@dataclass(frozen=True)
class DiskLayout:
    """Where the partitions are, in bytes; all on borders of 1 MiB. `size` is that of the disk."""

    size: int
    bios_boot: tuple[int, int]  # start and size
    esp: tuple[int, int]
    root: tuple[int, int]


@dataclass(frozen=True)
class DiskIds:
    """What the disk, its partitions and the root file system are called, so that a kernel finds its own."""

    disk: uuid.UUID
    root: uuid.UUID

    @classmethod
    def of(cls, digest: str) -> DiskIds:
        """Those of what was made from inputs with this digest: other inputs, other names."""
        state = hashlib.sha256(digest.encode()).digest()
        return cls(uuid.UUID(bytes=state[:16], version=4), uuid.UUID(bytes=state[16:], version=4))


def lay_out(size: int) -> DiskLayout:
    """The layout of a disk of `size` bytes. Pure; raises BadRequestError for a size that is none."""
    if size % MIB or size < _LEAST:
        hint = f"it is at least {format_size(_LEAST)}, in steps of 1 MiB"
        raise BadRequestError(f"a disk image cannot be {format_size(size)} large", hint)
    esp = 2 * MIB, 64 * MIB
    start = sum(esp)
    # The last 1 MiB has the second copy of the table.
    return DiskLayout(size, (MIB, MIB), esp, (start, size - start - MIB))


def table_options(layout: DiskLayout, ids: DiskIds) -> list[str]:
    """Options of sgdisk that write the partition table. Pure."""
    options = ["--clear", f"--disk-guid={ids.disk}"]
    parts = (
        ("bios-boot", _BIOS_BOOT_TYPE, layout.bios_boot),
        ("efi-system", _ESP_TYPE, layout.esp),
        ("root", arch.current().disk.root_type, layout.root),
    )
    for number, (name, kind, (start, size)) in enumerate(parts, 1):
        first, last = start // grub.SECTOR, (start + size) // grub.SECTOR - 1
        options += [
            f"--new={number}:{first}:{last}",
            f"--typecode={number}:{kind}",
            f"--change-name={number}:{name}",
            f"--partition-guid={number}:{uuid.uuid5(ids.disk, name)}",
        ]
    return options


def tools(cache: Cache) -> Path:
    """The tree with the programs that make disks; made first when it is not there. Raises BadRequestError."""
    if not cache.has(tools_artifact()) and os.geteuid() != 0:
        raise BadRequestError(
            "making the tools for disks needs root", "run this once through sudo, later runs need no root"
        )
    return cache.ensure(tools_artifact()) / roots.TREE


def tools_artifact() -> Artifact:
    return roots.artifact("disk-tools", recipes.roots().disk_tools)


def artifact(name: str, cache: Cache) -> Artifact:
    """The disk of the recipe `name`, with kernel, initrd and command line. Raises BadRequestError."""
    recipe = recipes.disk_image(name)
    layout = lay_out(recipe.size)
    tree = _tree_artifact(name)
    folder, early = _sources(name)
    inputs = {
        "tree": tree.digest,
        "tools": tools_artifact().digest,
        "files": digest_tree(folder),
        "early": early.read_text(),
        "layout": str(layout),
        "commands": "\n".join((*_ROOT_OPTIONS, _ROOT_EXTENDED, grub.BIOS_MODULES, grub.EFI_MODULES)),
    }
    ids = DiskIds.of(str(sorted(inputs.items())))

    def build(out: Path) -> None:
        stage = out / "stage"
        _stage(cache.ensure(tree) / roots.TREE, folder, stage, ids, out / "build.log")
        _write(stage, layout, ids, early, tools(cache), out)
        shutil.rmtree(stage)

    return Artifact(f"disk-{name}", inputs, build)


def build(name: str, cache: Cache) -> Path:
    """The folder with the disk and what is beside it, made when it is not there. Raises BadRequestError."""
    wanted = artifact(name, cache)
    if not cache.has(wanted):
        _check_user(name)
    folder = cache.ensure(wanted)
    cache.touch(wanted)
    cache.prune(wanted.name, _KEEP)
    return folder


def built(name: str, cache: Cache) -> Path | None:
    """The disk, if it is there as the recipe is now."""
    folder = cache.path(artifact(name, cache))
    return folder / DISK if folder.is_dir() else None


def check_output(output: Path) -> None:
    """Raises ConflictError or BadRequestError unless a new file can be made there."""
    if os.path.lexists(output):
        raise ConflictError(f"{output} is there already", "give --output the name of a new file")
    if not output.parent.is_dir():
        raise BadRequestError(
            f"no folder {output.parent}", f"make it: mkdir -p {proc.quote([output.parent])}"
        )


def copy_to(disk: Path, output: Path, phases: Phases) -> None:
    """A copy that has the disk's holes; it is whole, or it is not there. Raises CommandError, and
    ConflictError for a disk that a machine writes to.
    """
    check_output(output)
    partial = output.with_name(f".{output.name}.partial")
    with image_lock.read(disk), phases.phase(PhaseName.COPY_IMAGE):
        try:
            proc.run(sparse_copy(disk, partial), timeout=_TIMEOUT_S)
            paths.give_to_user(partial)
            partial.rename(output)
        finally:
            partial.unlink(missing_ok=True)


def sparse_copy(disk: Path, copy: Path) -> list[proc.Arg]:
    """The command that makes a copy which has the disk's holes."""
    return ["cp", "--sparse=always", "--reflink=auto", disk, copy]


def forget_trees(name: str, cache: Cache) -> None:
    """Drop the disk and the Debian trees it is made with, so that the next `build` takes the archive's newest
    packages. Raises BadRequestError for who could not make it again.
    """
    _check_user(name)
    for each in (artifact(name, cache), _tree_artifact(name), tools_artifact()):
        cache.forget(each)


def _check_user(name: str) -> None:
    if os.geteuid() != 0:
        hint = f"run 'multiroot vm image build {name}' through sudo once"
        raise BadRequestError("building a disk image needs root", hint)


def _tree_artifact(name: str) -> Artifact:
    return roots.artifact(f"disk-{name}", recipes.disk_image(name).root)


def _sources(name: str) -> tuple[Path, Path]:
    """The recipe's folder, and GRUB's first commands."""
    folder = paths.recipes_dir() / "images"
    return folder / name, folder / "grub-early.cfg"


def _stage(tree: Path, folder: Path, stage: Path, ids: DiskIds, log: Path) -> None:
    """A copy of the tree with our files in it, configured."""
    proc.run(["cp", "--archive", "--reflink=auto", tree, stage], log=log, timeout=_TIMEOUT_S)
    files = folder / "files"
    for path in source_files(files):
        target = stage / path.relative_to(files)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        text = path.read_text()
        if str(path.relative_to(files)) in _MARKED:
            text = marked(text, ids.root)
        target.write_text(text)
        target.chmod(path.stat().st_mode & 0o111 | 0o644)
    inside = stage / "configure"
    shutil.copy(folder / "configure", inside)
    roots.chroot_run(stage, ["/configure"], log=log)
    inside.unlink()


def marked(text: str, root: uuid.UUID) -> str:
    """A file's text with the UUID of the root file system where it has the mark. Pure."""
    return text.replace(_ROOT_MARK, str(root))


def _write(stage: Path, layout: DiskLayout, ids: DiskIds, early: Path, programs: Path, out: Path) -> None:
    log = out / "build.log"
    disk = out / DISK
    disk.touch()
    os.truncate(disk, layout.size)
    sgdisk = roots.loader_argv(programs, "sbin/sgdisk")
    argv: list[proc.Arg] = [*sgdisk, *table_options(layout, ids), disk]
    proc.run(argv, log=log, timeout=_TIMEOUT_S)
    _write_root(stage, disk, layout, ids, programs, log)
    commands = out / "early.cfg"
    commands.write_text(marked(early.read_text(), ids.root))
    _write_bios_boot(disk, layout, commands, programs, out)
    _write_esp(disk, layout, commands, programs, out)
    commands.unlink()
    for link, name in (("vmlinuz", KERNEL), ("initrd.img", INITRD)):
        target = str((stage / link).readlink()).lstrip("/")
        shutil.copyfile(stage / target, out / name)
    serial = arch.current().serial
    (out / CMDLINE).write_text(f"root=UUID={ids.root} ro console={serial}0,115200\n")


def _write_root(stage: Path, disk: Path, layout: DiskLayout, ids: DiskIds, programs: Path, log: Path) -> None:
    start, size = layout.root
    extended = f"{_ROOT_EXTENDED},offset={start},hash_seed={ids.root}"
    options: list[proc.Arg] = [*_ROOT_OPTIONS, "-U", str(ids.root), "-E", extended, "-d", stage]
    mkfs = roots.loader_argv(programs, "sbin/mkfs.ext4")
    config = {"MKE2FS_CONFIG": str(programs / "etc/mke2fs.conf")}
    proc.run([*mkfs, *options, disk, f"{size // 1024}k"], log=log, timeout=_TIMEOUT_S, env=config)
    check = [*roots.loader_argv(programs, "sbin/e2fsck"), "-f", "-n", f"{disk}?offset={start}"]
    proc.run(check, log=log, timeout=_TIMEOUT_S)


def _write_bios_boot(disk: Path, layout: DiskLayout, commands: Path, programs: Path, out: Path) -> None:
    """GRUB for a BIOS: in the first sector, and in its partition."""
    start, size = layout.bios_boot
    made = out / "core.img"
    boot, core = grub.make_bios(programs, commands, made, out / "build.log")
    sector = start // grub.SECTOR
    with disk.open("r+b") as file:
        first = file.read(grub.SECTOR)
        file.seek(0)
        file.write(grub.boot_sector(first, boot, sector))
        file.seek(start)
        file.write(grub.placed_core(core, sector, size))
    made.unlink()


def _write_esp(disk: Path, layout: DiskLayout, commands: Path, programs: Path, out: Path) -> None:
    """GRUB for UEFI, on a FAT file system of its own."""
    start, size = layout.esp
    log = out / "build.log"
    made, image = out / "grub.efi", out / "esp.img"
    grub.make_efi(programs, commands, made, log)
    esp = FatImage(image, programs, log)
    esp.format("EFI", size)
    where = Path(arch.current().disk.efi_file)
    for folder in reversed(where.parents[:-1]):
        esp.make_folder(folder)
    esp.put(made, where)
    copy_into(image, disk, start)
    for path in (made, image):
        path.unlink()


def copy_into(source: Path, target: Path, at: int) -> None:
    """Copy a file into `target` from its byte `at` on, where it is zero so far; zeros stay holes."""
    with source.open("rb") as read, target.open("r+b") as write:
        place = at
        while piece := read.read(64 * KIB):
            if piece.strip(b"\0"):
                write.seek(place)
                write.write(piece)
            place += len(piece)
