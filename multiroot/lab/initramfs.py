# SPDX-License-Identifier: GPL-2.0-or-later
"""The small initramfs of a lab kernel: BusyBox, a few modules and `qemu-lab/initramfs/init`, which
mounts the image.
"""

from __future__ import annotations

from pathlib import Path

from multiroot.kexec.cpio import Archive
from multiroot.lab import modules, paths, roots
from multiroot.lab.artifacts import Artifact, digest_tree
from multiroot.lab.cache import Cache
from multiroot.lab.kernels import Kernel


def artifact(kernel: Kernel, emulator: Artifact, cache: Cache) -> Artifact:
    """`initrd` for one kernel; not compressed, since unpacking costs an emulated CPU more than loading."""
    recipe = paths.recipes_dir() / "initramfs"

    def build(out: Path) -> None:
        tools = cache.ensure(emulator) / roots.TREE
        wanted = modules.words(recipe / "modules")
        archive = Archive()
        for folder in ("proc", "sys", "dev", "image", "overlay", "root"):
            archive.folder(folder)
        archive.device("dev/console", 5, 1)
        archive.device("dev/null", 1, 3)
        archive.file("bin/busybox", (tools / "usr/bin/busybox").read_bytes(), 0o755)
        archive.file("kernel", f"{kernel.name}\n".encode())
        archive.file("init", (recipe / "init").read_bytes(), 0o755)
        add_modules(archive, kernel, wanted, tools)
        (out / "initrd").write_bytes(archive.finish())

    inputs = {
        "kernel": kernel.artifact.digest,
        "name": kernel.name,
        "emulator": emulator.digest,
        "recipe": digest_tree(recipe),
    }
    return Artifact(f"initramfs-{kernel.name}", inputs, build)


def add_modules(archive: Archive, kernel: Kernel, wanted: list[str], tools: Path) -> None:
    """Put modules and all they need under /modules; /modules/order lists them, one path a line, in load
    order.
    """
    zstd = roots.loader_argv(tools, "bin/zstd")
    order = modules.load_order(kernel.modules, wanted)
    for path in order:
        archive.file(f"modules/{modules.plain_name(path)}", modules.read_module(path, zstd))
    lines = [f"/modules/{modules.plain_name(path)}\n" for path in order]
    archive.file("modules/order", "".join(lines).encode())
