# SPDX-License-Identifier: GPL-2.0-or-later
"""Small programs of the lab, and the guests made of them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from multiroot.kexec.cpio import Archive
from multiroot.lab import initramfs, paths, recipes, roots
from multiroot.lab.artifacts import Artifact
from multiroot.lab.cache import Cache
from multiroot.lab.kernels import Kernel
from multiroot.units import KIB, MIB
from multiroot.vm.guests import NEEDS, Needs

TICKER = "ticker"
COMMANDS = "commands"  # runs what it is told to, as roots do
_COMMANDS_MODULES = ["virtio_pci", "virtio_net"]
# virtio_pci is built in or a module, by kernel; a microvm's card needs virtio_mmio. The last ones drive
# devices passed through, disks and a watchdog, if there, and say that the power button was pressed.
_TICKER_MODULES = [
    "virtio_pci",
    "virtio_mmio?",
    "virtio_net",
    "igb?",
    "igbvf?",
    "nvme?",
    "virtio_blk?",
    "virtio_scsi?",
    "sd_mod?",
    "sr_mod?",
    "pvpanic_mmio?",
    "button?",
    "i6300esb?",
    "evdev?",
]
# Its region of 32 MiB, less what its kernel no longer takes. With Debian's 6.12 for clouds, which takes
# 80 MiB to unpack itself, it came up in 96 MiB with one CPU and not in 94, in 102 with eight and not in 100.
_TICKER_NEEDS = Needs(more=16 * MIB, each_cpu=880 * KIB, unless="ticker.region")
_MORE = {"ticker-full": 18 * MIB}  # its kernel takes 84; it came up in 102 and not in 100
_CFLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
_LIBRARY = ["-shared", "-fPIC"]


def image(kind: str, kernel: str = "") -> str:
    """What a guest of a kind is called whose kernel the lab calls `kernel`; "": that of the lab's guests."""
    if kernel in ("", recipes.kernels().guest):
        return kind
    plain = re.sub(r"[^a-z0-9]", "-", kernel)
    # A guest's name is 32 characters at most (rpc/border.py).
    return f"{kind}-{plain if len(plain) < 20 else hashlib.sha256(kernel.encode()).hexdigest()[:12]}"


def program_artifact(source: Path, emulator: Artifact, cache: Cache, *, library: bool = False) -> Artifact:
    """A static program compiled from a C file, or from all in a folder, in the emulator root, or a shared
    library: `out/<stem>`.
    """
    flags = [*_CFLAGS, *(_LIBRARY if library else ["-static"])]
    files = sorted(source.glob("*.[ch]")) if source.is_dir() else [source]

    def build(out: Path) -> None:
        tree = cache.ensure(emulator) / roots.TREE
        folder = tree / "tmp" / out.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
        inside = f"/tmp/{out.name}"
        code = [f"{inside}/{file.name}" for file in files if file.suffix == ".c"]
        roots.chroot_run(tree, ["gcc", *flags, "-o", f"{inside}/{source.stem}", *code], log=out / "build.log")
        shutil.copy(folder / source.stem, out)
        shutil.rmtree(folder)

    code = "".join(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return Artifact(
        f"program-{source.stem}", {"source": code, "flags": " ".join(flags), "root": emulator.digest}, build
    )


def ticker_artifact(name: str, kernel: Kernel, emulator: Artifact, cache: Cache) -> Artifact:
    """The guest that ticks, as guest image `name`: `vmlinuz` and `initrd` (see qemu-lab/guests/README.md)."""
    needs = json.dumps(asdict(replace(_TICKER_NEEDS, more=_MORE.get(name, _TICKER_NEEDS.more))))
    program, scanner = (
        program_artifact(paths.recipes_dir() / "guests" / source, emulator, cache)
        for source in ("ticker", "scanner.c")
    )

    def build(out: Path) -> None:
        archive = Archive()
        for folder in ("proc", "sys", "dev"):
            archive.folder(folder)
        archive.device("dev/console", 5, 1)
        archive.file("init", (cache.ensure(program) / "ticker").read_bytes(), 0o755)
        archive.file("scanner", (cache.ensure(scanner) / "scanner").read_bytes(), 0o755)
        initramfs.add_modules(archive, kernel, _TICKER_MODULES, cache.ensure(emulator) / roots.TREE)
        (out / "initrd").write_bytes(archive.finish())
        shutil.copy(kernel.vmlinuz, out / "vmlinuz")
        (out / NEEDS).write_text(needs)

    inputs = {
        "kernel": kernel.artifact.digest,
        "needs": needs,
        "program": program.digest,
        "scanner": scanner.digest,
        "modules": " ".join(_TICKER_MODULES),
    }
    return Artifact(f"guest-{name}", inputs, build)


def commands_artifact(
    name: str, kernel: Kernel, execd: Artifact, emulator: Artifact, cache: Cache
) -> Artifact:
    """The guest that runs commands, as guest image `name`: BusyBox, and the exec service of roots."""
    init = paths.recipes_dir() / "guests/commands"

    def build(out: Path) -> None:
        tools = cache.ensure(emulator) / roots.TREE
        archive = Archive()
        for folder in ("proc", "sys", "dev", "root", "run", "tmp", "usr", "usr/bin", "usr/sbin", "sbin"):
            archive.folder(folder)
        archive.device("dev/console", 5, 1)
        archive.device("dev/null", 1, 3)
        archive.file("bin/busybox", (tools / "usr/bin/busybox").read_bytes(), 0o755)
        archive.file("execd", (cache.ensure(execd) / "execd").read_bytes(), 0o755)
        archive.file("init", init.read_bytes(), 0o755)
        initramfs.add_modules(archive, kernel, _COMMANDS_MODULES, tools)
        (out / "initrd").write_bytes(archive.finish())
        shutil.copy(kernel.vmlinuz, out / "vmlinuz")

    inputs = {
        "kernel": kernel.artifact.digest,
        "execd": execd.digest,
        "init": init.read_text(),
        "emulator": emulator.digest,
        "modules": " ".join(_COMMANDS_MODULES),
    }
    return Artifact(f"guest-{name}", inputs, build)
