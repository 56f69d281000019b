# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of the lab: Debian's, unpacked from their packages, or any kernel file with its modules."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import built_in, kernel_file, modules, paths, roots
from multiroot.lab.artifacts import Artifact, digest_tree, source_files
from multiroot.lab.cache import Cache
from multiroot.lab.own_kernel import KernelSource
from multiroot.lab.recipes import KernelRecipe, RootRecipe


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to be put into an image: a folder with vmlinuz and lib/modules/RELEASE."""

    name: str
    release: str
    folder: Path
    artifact: Artifact

    @property
    def vmlinuz(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def modules(self) -> Path:
        return self.folder / "lib/modules" / self.release


def release_of(path: Path) -> str:
    """The release of the kernel in a file. Raises BadRequestError."""
    form = arch.current().kernel
    try:
        with path.open("rb") as file:
            head = file.read(form.head)
    except OSError as error:
        raise BadRequestError(f"cannot read kernel {path}: {error.strerror}") from error
    try:
        return form.release(head)
    except BadRequestError as error:
        raise BadRequestError(f"{path}: {error.message}", error.hint) from error


def root_artifact(kernel: KernelRecipe, common: RootRecipe) -> Artifact:
    """The build root of a Debian kernel: headers, compiler, and its packages in /srv/kernel."""
    recipe = common.model_copy(
        update={"suite": kernel.suite, "backports": ("linux-*",) if kernel.backports else common.backports}
    )
    return roots.artifact(f"kernel-{kernel.name}", recipe)


def debian_artifact(name: str, root: Artifact, emulator: Artifact, cache: Cache) -> Artifact:
    """A Debian kernel, unpacked from the packages in its build root."""

    def build(out: Path) -> None:
        tree = cache.ensure(root) / roots.TREE
        unpacked = out / "unpacked"
        for package in sorted((tree / "srv/kernel").glob("*.deb")):
            proc.run(["dpkg-deb", "-x", package, unpacked], log=out / "build.log")
        images = [*unpacked.glob("boot/vmlinuz-*"), *unpacked.glob("usr/lib/modules/*/vmlinuz")]
        if len(images) != 1:
            raise CommandError(f"the packages of kernel {name} hold {len(images)} kernels, not 1")
        release = release_of(images[0])
        # Debian 13 moved /lib/modules to /usr/lib/modules.
        folders = [unpacked / lib / "modules" / release for lib in ("lib", "usr/lib")]
        modules = next(path for path in folders if path.is_dir())
        source = KernelSource(images[0], images[0].read_bytes(), release, _headers(tree), modules)
        _gather(source, cache.ensure(emulator) / roots.TREE, out)
        shutil.rmtree(unpacked)

    inputs = {"root": root.digest, "emulator": emulator.digest, "contents": _CONTENTS}
    return Artifact(f"kernel-{name}", inputs, build)


def source_artifact(source: KernelSource, emulator: Artifact, cache: Cache) -> Artifact:
    """Somebody's own kernel, copied; what is only for debuggers is left out of its modules."""
    inputs = {
        "image": source.sha256,
        "modules": source.stamp(),
        "emulator": emulator.digest,
        "contents": _CONTENTS,
    }
    return Artifact(
        f"kernel-{source.release}",
        inputs,
        lambda out: _gather(source, cache.ensure(emulator) / roots.TREE, out),
    )


def build_id_artifact(
    name: str, sha256: str, image: Callable[[], bytes], emulator: Artifact, cache: Cache
) -> Artifact:
    """The build-id of a kernel's image: to unpack a kernel takes a second, and that is often enough."""

    def build(out: Path) -> None:
        zstd = roots.loader_argv(cache.ensure(emulator) / roots.TREE, "bin/zstd")
        (out / BUILD_ID).write_text(kernel_file.build_id(image(), {"zstd": zstd}) + "\n")

    return Artifact(f"buildid-{name}", {"image": sha256}, build)


def package_artifact(package: Path, sha256: str) -> Artifact:
    """A Debian package, unpacked."""

    def build(out: Path) -> None:
        proc.run(["dpkg-deb", "-x", package, out], log=out / "build.log")

    return Artifact("package", {"sha256": sha256}, build)


BUILD_ID = "build-id"
_CONTENTS = "vmlinuz config release lib/modules"
# What depmod wants to know beside the modules.
_INDEXES = ("modules.order", "modules.builtin", "modules.builtin.modinfo")


def _gather(source: KernelSource, tools: Path, out: Path) -> None:
    """Put what `_CONTENTS` names into `out`, the modules indexed."""
    (out / "vmlinuz").write_bytes(source.image)
    shutil.copy(source.config, out / "config")
    (out / "release").write_text(source.release + "\n")
    folder = out / "lib/modules" / source.release
    if source.installed:
        leave = shutil.ignore_patterns("build", "source", "vmlinuz")
        shutil.copytree(source.installed, folder, symlinks=True, ignore=leave)
    else:
        _gather_built(source, tools, folder, out / "build.log")
    depmod = roots.loader_argv(tools, "sbin/depmod")
    proc.run([*depmod, "-b", out, source.release], log=out / "build.log")


def _gather_built(source: KernelSource, tools: Path, folder: Path, log: Path) -> None:
    """Modules as `make INSTALL_MOD_STRIP=1 modules_install` would install them."""
    strip = roots.loader_argv(tools, "bin/strip")
    for path, place in source.modules():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        proc.run([*strip, "--strip-debug", "-o", target, path], log=log)
    order = [f"{place}\n" for _, place in source.modules()]
    folder.mkdir(parents=True, exist_ok=True)
    for name in _INDEXES:
        if (source.build / name).is_file():
            shutil.copy(source.build / name, folder)
    (folder / "modules.order").write_text("".join(order))


def opened(name: str, artifact: Artifact, cache: Cache) -> Kernel:
    """The kernel in an artifact, which is built when needed."""
    folder = cache.ensure(artifact)
    return Kernel(name, (folder / "release").read_text().strip(), folder, artifact)


def module_artifact(name: str, build_with: Artifact | KernelSource, cache: Cache) -> Artifact:
    """multiroot.ko and its companions for one kernel, compiled in its build root (or, for somebody's own,
    with the host's compiler).
    """
    source = built_in.sources()

    def build(out: Path) -> None:
        if isinstance(build_with, KernelSource) and not build_with.loads_modules:
            return  # They are in the kernel.
        if isinstance(build_with, KernelSource):
            folder = out / "src"
            _copy_sources(source, folder)
            make = [*_make(build_with), "-C", str(build_with.build), f"M={folder}", "modules"]
            _compile(name, out / "build.log", lambda log: proc.run(make, log=log, timeout=600))
        else:
            tree = cache.ensure(build_with) / roots.TREE
            # A folder of its own: the tree is shared with builds for other source states.
            folder = tree / "tmp" / out.name
            shutil.rmtree(folder, ignore_errors=True)
            _copy_sources(source, folder)
            headers = f"/{_headers(tree).relative_to(tree)}"
            inside = ["make", "-j2", "-C", headers, f"M=/tmp/{out.name}", "modules"]
            _compile(name, out / "build.log", lambda log: roots.chroot_run(tree, inside, log=log))
        for module in sorted(folder.glob("*.ko")):
            shutil.copy(module, out)
        shutil.rmtree(folder)

    if isinstance(build_with, KernelSource):
        against = f"{build_with.sha256} {build_with.stamp()}"
    else:
        against = build_with.digest
    inputs = {"source": digest_tree(source, ("**/*.[chS]", "**/Kbuild", "**/Makefile")), "against": against}
    return Artifact(f"module-{name}", inputs, build)


def modules_artifact(kernel: Kernel, module: Artifact, emulator: Artifact, cache: Cache) -> Artifact:
    """The kernel's modules with ours among them, indexed; those that every root loads are not
    compressed.
    """
    eager = paths.recipes_dir() / "image/modules"

    def build(out: Path) -> None:
        tools = cache.ensure(emulator) / roots.TREE
        folder = out / "lib/modules" / kernel.release
        shutil.copytree(kernel.modules, folder, symlinks=True, copy_function=os.link)
        (folder / "extra").mkdir()
        for ours in sorted(cache.ensure(module).glob("*.ko")):
            shutil.copy(ours, folder / "extra")
        zstd = roots.loader_argv(tools, "bin/zstd")
        for path in modules.load_order(kernel.modules, modules.words(eager)):
            staged = folder / path.relative_to(kernel.modules)
            data = modules.read_module(path, zstd)
            staged.unlink()
            staged.with_name(modules.plain_name(path)).write_bytes(data)
        proc.run([*roots.loader_argv(tools, "sbin/depmod"), "-b", out, kernel.release], log=out / "build.log")

    inputs = {"kernel": kernel.artifact.digest, "module": module.digest, "eager": eager.read_text()}
    return Artifact(f"modules-{kernel.name}", inputs, build)


def _headers(tree: Path) -> Path:
    """Where a build root has its kernel's headers and configuration."""
    found = sorted((tree / "usr/src").glob(f"linux-headers-*-{arch.current().lab.debian}"))
    if len(found) != 1:
        raise CommandError(f"{tree} holds {len(found)} sets of kernel headers, not 1")
    return found[0]


def _make(source: KernelSource) -> list[str]:
    """make, with the compiler that built the kernel."""
    clang = "CONFIG_CC_IS_CLANG=y" in source.config.read_text(errors="replace").splitlines()
    return ["make", "-j2", *(["LLVM=1"] if clang else [])]


def _compile(name: str, log: Path, run: Callable[[Path], object]) -> None:
    """Run make; when it fails, tell the compiler's first complaint and not make's last."""
    try:
        run(log)
    except CommandError as error:
        lines = log.read_text(errors="replace").splitlines()
        first = next((line for line in lines if "error:" in line.lower()), error.message)
        raise CommandError(f"modules for kernel {name}: {first}", f"log: {log}") from error


def _copy_sources(source: Path, target: Path) -> None:
    for path in source_files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
