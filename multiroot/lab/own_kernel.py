# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody's own kernel: what belongs to what they name, be it a tree, a file or a package.

What is named may be the folder that a kernel was built in (the source tree, or the O= folder), an image in
it, an image with lib/modules beside it, a folder with both (INSTALL_MOD_PATH, an unpacked package), a Debian
package of a kernel, or a Unified Kernel Image with modules beside it. Modules come from the build tree as
they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from multiroot import arch
from multiroot.errors import BadRequestError
from multiroot.kexec.target import target
from multiroot.lab import built_in, kernel_config, kernel_file

_DIGITS = 8  # of the image's sha256, in a kernel's name
Unpack = Callable[[Path, str], Path]


@dataclass(frozen=True)
class KernelSource:
    """Somebody's own kernel: its image, its modules by their place below lib/modules/RELEASE/kernel, and the
    tree to build modules against. `path` is what was named. `vmlinux` is its ELF file, for lines of source.

    `installed` is lib/modules/RELEASE; None when the modules are those of the build tree `build`.
    """

    path: Path
    image: bytes = field(repr=False)
    release: str
    build: Path
    installed: Path | None = None
    vmlinux: Path | None = None

    @property
    def sha256(self) -> str:
        """Of the image, hex digits."""
        return hashlib.sha256(self.image).hexdigest()

    @property
    def name(self) -> str:
        """What the lab calls it: two kernels of one release are two."""
        return _name(self.release, self.image)

    @property
    def config(self) -> Path:
        return self.build / ".config"

    @property
    def loads_modules(self) -> bool:
        """Whether it loads any; a kernel that does not has ours built in."""
        return built_in.loads_modules(self.config)

    def modules(self) -> Iterator[tuple[Path, Path]]:
        """Each module's file and its place below lib/modules/RELEASE. Raises BadRequestError for one that the
        build tree should have and has not.
        """
        if self.installed:
            for path in sorted(self.installed.rglob("*.ko*")):
                yield path, path.relative_to(self.installed)
            return
        order = self.build / "modules.order"
        for line in order.read_text().split() if self.loads_modules else ():
            # "kernel/fs/x.ko", "fs/x.ko" or "fs/x.o", by release.
            place = Path(line.removeprefix("kernel/")).with_suffix(".ko")
            if not (self.build / place).is_file():
                raise _unbuilt(self.build, f"{place} is missing")
            yield self.build / place, Path("kernel") / place

    def stamp(self) -> str:
        """What its modules and its tree depend on."""
        files = [path for path, _ in self.modules()]
        trees = [self.config, *([self.build / "Module.symvers"] if self.loads_modules else [])]
        return "".join(
            f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in (*files, *trees)
        )


def locate(path: Path, modules: Path | None = None, unpack: Unpack | None = None) -> KernelSource:
    """Find what belongs to what somebody names. `modules` is where its modules are if not where one looks;
    `unpack` gives the folder of an unpacked package, by its path and sha256.

    Raises BadRequestError that says what is missing and what to do.
    """
    file = _image_path(path.expanduser(), unpack)
    image = kernel_file.image_in(file)
    release = _release(file, image)
    try:
        target().read_image(image)
    except BadRequestError as error:
        raise BadRequestError(f"{file}: {error.message}", error.hint) from error
    tree = _tree_of(file)
    if tree and not modules:
        source = _of_tree(path, tree, image, release)
    else:
        source = _installed(path, file, image, release, modules, unpack)
    _check_config(source)
    return source


def name_of(path: Path, unpack: Unpack | None = None) -> str:
    """What the lab calls the kernel that somebody names, by its image alone. Raises BadRequestError."""
    file = _image_path(path.expanduser(), unpack)
    image = kernel_file.image_in(file)
    return _name(_release(file, image), image)


def _built() -> str:
    """Where an image is in the folder in which it was built."""
    return arch.current().kernel.built


def _name(release: str, image: bytes) -> str:
    return f"{release}-{hashlib.sha256(image).hexdigest()[:_DIGITS]}"


def _image_path(path: Path, unpack: Unpack | None) -> Path:
    """The file with the kernel."""
    if path.is_dir():
        if _is_build_tree(path) or (path / "Kconfig").is_file():
            return _built_image(path)
        return _only_image(path, path, "name a tree that was built, its O= folder, or a folder with vmlinuz")
    if path.suffix == ".deb" and not path.is_file():
        raise BadRequestError(f"there is no file {path}", "name a package such as linux-image-RELEASE_*.deb")
    if path.suffix == ".deb":
        if not unpack:
            raise BadRequestError(f"{path} is a package", "unpack it (`dpkg-deb -x`) and give its folder")
        return _only_image(path, unpack(path, _sha256(path)), "give the package linux-image-RELEASE")
    return path


def _built_image(tree: Path) -> Path:
    if not (tree / ".config").is_file():
        raise BadRequestError(
            f"{tree} was never configured",
            f"`multiroot kernel build {tree}` builds it; or give its O= folder",
        )
    if not (tree / _built()).is_file():
        raise _unbuilt(tree, f"there is no {_built()}")
    return tree / _built()


def _only_image(path: Path, folder: Path, hint: str) -> Path:
    found = sorted({each.resolve() for each in _images(folder)})
    if len(found) > 1:
        raise BadRequestError(f"{path} holds {len(found)} kernels", f"name one of them, such as {found[0]}")
    if not found:
        raise BadRequestError(f"{path} holds no kernel", hint)
    return found[0]


def _images(folder: Path) -> Iterator[Path]:
    for pattern in (
        "vmlinuz*",
        "boot/vmlinuz*",
        "lib/modules/*/vmlinuz",
        "usr/lib/modules/*/vmlinuz",
        arch.current().kernel.name,
    ):
        yield from (each for each in folder.glob(pattern) if each.is_file())


def _tree_of(file: Path) -> Path | None:
    """The folder in which an image was built, if it still lies there."""
    real = file.resolve()
    return next(
        (folder for folder in real.parents if folder / _built() == real and _is_build_tree(folder)), None
    )


def _installed(
    path: Path, file: Path, image: bytes, release: str, modules: Path | None, unpack: Unpack | None
) -> KernelSource:
    """A kernel whose modules are in a folder like lib/modules/RELEASE."""
    near = dict.fromkeys((file.parent, *list(file.resolve().parents)[:4], Path("/")))
    places = [base / lib / "modules" / release for base in near for lib in ("lib", "usr/lib")]
    tried = [modules] if modules else places
    found = next((each for each in tried if (each / "kernel").is_dir()), None)
    if not found:
        looked = modules or f"{places[0]} and so on"
        raise BadRequestError(
            f"no modules of kernel {release}",
            f"looked in {looked}; where they are: --modules DIR/lib/modules/{release}",
        )
    trees = [
        found / "build",
        *_headers_beside(path, release, unpack),
        Path("/lib/modules") / release / "build",
    ]
    build = next((tree for tree in trees if _is_build_tree(tree)), None)
    if not build:
        more = f", or linux-headers-{release}_*.deb beside the package" if path.suffix == ".deb" else ""
        raise BadRequestError(
            f"no build tree of kernel {release}", f"{trees[0]} must lead to its headers and .config{more}"
        )
    beside = [build / "vmlinux", file.parent / "vmlinux", file.parent / f"vmlinux-{release}"]
    vmlinux = next((each for each in beside if each.is_file()), None)
    return KernelSource(path, image, release, build.resolve(), found.resolve(), vmlinux)


def _headers_beside(path: Path, release: str, unpack: Unpack | None) -> list[Path]:
    """Trees in the package of headers that lies beside a kernel's package."""
    if path.suffix != ".deb" or not unpack:
        return []
    packages = sorted(path.expanduser().parent.glob(f"linux-headers-{release}_*.deb"))
    return [tree for each in packages for tree in sorted(unpack(each, _sha256(each)).glob("usr/src/*"))]


def _of_tree(path: Path, tree: Path, image: bytes, release: str) -> KernelSource:
    """A kernel in the folder in which it was built."""
    told = tree / "include/config/kernel.release"
    if told.is_file() and told.read_text().strip() != release:
        raise _unbuilt(tree, f"its {_built()} is {release}, and it is now {told.read_text().strip()}")
    modular = built_in.loads_modules(tree / ".config")
    if not modular:
        built_in.check(tree)
    for name in ("modules.builtin", *(("modules.order", "Module.symvers") if modular else ())):
        if not (tree / name).is_file():
            raise _unbuilt(tree, f"there is no {name}")
    vmlinux = tree / "vmlinux"
    return KernelSource(path, image, release, tree, None, vmlinux if vmlinux.is_file() else None)


def _check_config(source: KernelSource) -> None:
    """Raises BadRequestError if the kernel cannot be a root as it was built."""
    config = kernel_config.parse(source.config.read_text(errors="replace"), source.config)
    lacks = [each for each in kernel_config.check(config, kernel_config.wishes().feature) if each.needed]
    if lacks:
        more = f", and {len(lacks) - 1} more" if len(lacks) > 1 else ""
        raise BadRequestError(
            f"kernel {source.release} cannot be a root: {lacks[0]}{more}",
            f"see `multiroot kernel config check {source.config}`",
        )


def _unbuilt(tree: Path, what: str) -> BadRequestError:
    modules = " modules" if built_in.loads_modules(tree / ".config") else ""
    return BadRequestError(
        f"{tree} is not built: {what}", f"`make -C {tree} -j$(nproc) {arch.current().kernel.name}{modules}`"
    )


def _is_build_tree(tree: Path) -> bool:
    return all((tree / name).is_file() for name in ("Makefile", ".config"))


def _release(path: Path, image: bytes) -> str:
    form = arch.current().kernel
    try:
        return form.release(image[: form.head])
    except BadRequestError as error:
        raise BadRequestError(f"{path}: {error.message}", error.hint) from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadRequestError(f"cannot read {path}: {error.strerror}") from error
