# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds a small kernel that can be a root: from a source tree of somebody's, or from Debian's source
packages.

The tree is left as it is: everything goes to an O= folder. What was compiled before comes from ccache, so
that the next commit of a bisect costs what it changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import built_in, kernel_config, lab, paths, recipes, roots, source_kernels
from multiroot.lab.artifacts import Artifact, source_files
from multiroot.lab.kernel_config import Feature, Lack
from multiroot.lab.recipes import KernelRecipe, RootRecipe
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.workbench.link_tree import link_tree, put

_PACKAGE = re.compile(r"linux-source(-[0-9][0-9a-z.+~-]*)?")
# What a kernel's build calls, and the package that has it.
_PROGRAMS = {
    "make": "make",
    "gcc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "tar": "tar",
    "xz": "xz-utils",
}
_HEADERS = {"/usr/include/libelf.h": "libelf-dev", "/usr/include/openssl/opensslv.h": "libssl-dev"}
_OUR_TREE = "multiroot-tree"  # in the O= folder: the tree with our modules in it
_FRAGMENT = "multiroot.config"  # in the O= folder: what was merged last
_COMPLAINT = re.compile(r"\berror:|\*\*\* |undefined reference")
_NO_PROGRAM = re.compile(r"sh: .*: (command )?not found$")  # a shell's; make says "Error 127" after it
_FETCH_S, _CONFIGURE_S, _COMPILE_S = 1800.0, 300.0, 4 * 3600.0


@dataclass(frozen=True)
class Order:
    """What is to be built. `source` is a tree, a Debian package or a kernel of the lab's by its name, `out`
    the O= folder (None: one in the cache). `base` is a configuration to start from (None: the architecture's
    default), `more` are fragments to merge after ours, `jobs` how many compilers run at once. `debug` names
    what the kernel is to look for in itself. With `no_modules` it loads none, and all that it needs is built
    in, our modules, too.
    """

    source: str
    out: Path | None = None
    base: Path | None = None
    more: tuple[Path, ...] = ()
    features: tuple[str, ...] = ()
    jobs: int = 0
    configure_only: bool = False
    debug: tuple[str, ...] = ()
    no_modules: bool = False

    def features_wanted(self) -> dict[str, Feature]:
        """All that it has to be or do. Raises BadRequestError for a name that there is not."""
        wishes = kernel_config.wishes()
        return {**wishes.chosen(self.features), **wishes.debugging(self.debug)}


@dataclass(frozen=True)
class Made:
    """A kernel that was built, or only configured: its O= folder, and what it still lacks."""

    out: Path
    release: str
    lacks: tuple[Lack, ...]


def check_tools(more: Mapping[str, str] | None = None) -> None:
    """Raises BadRequestError naming the packages that are missing on this computer. `more` are programs with
    their packages.
    """
    programs = {**_PROGRAMS, **(more or {})}
    missing = [package for program, package in programs.items() if not proc.find(program)]
    missing += [package for header, package in _HEADERS.items() if not Path(header).exists()]
    if missing:
        raise BadRequestError(
            f"to build a kernel takes {', '.join(missing)}", f"`sudo apt-get install {' '.join(missing)}`"
        )


def build(order: Order, phases: Phases) -> Made:
    """Configure and compile. Raises BadRequestError, and CommandError with the compiler's first complaint."""
    check_tools()
    chosen = order.features_wanted()
    for path in (*order.more, *([order.base] if order.base else [])):
        if not path.is_file():
            raise BadRequestError(f"there is no file {path}")
    source = source_tree(order.source, phases)
    kinds = (*order.debug, *(("built-in",) if order.no_modules else ()))
    out = (order.out or source_kernels.folder(order.source, kinds)).absolute()
    paths.make_dir(out)
    tree = _with_ours(source, out / _OUR_TREE) if order.no_modules else source
    log = out / "multiroot-build.log"
    log.write_text("")
    with phases.phase(PhaseName.CONFIGURE_KERNEL, out=str(out)):
        _configure(order, tree, out, log)
    lacks = kernel_config.check(kernel_config.parse((out / ".config").read_text()), chosen)
    needed = [each for each in lacks if each.needed]
    if needed:
        raise BadRequestError(
            f"{source} cannot be built as wanted: {needed[0]}",
            f"what it depends on is off: see {out / '.config'}",
        )
    if not order.configure_only:
        unfinished = out / source_kernels.UNFINISHED
        unfinished.touch()
        with phases.phase(PhaseName.COMPILE_KERNEL) as attributes:
            attributes["ccache"] = bool(proc.find("ccache"))
            _compile(order, tree, out, log)
        unfinished.unlink()
        if order.no_modules:
            built_in.note(out, source)
    release = _said(["make", "-s", "-C", str(tree), f"O={out}", "kernelrelease"])
    return Made(out, release, tuple(lacks))


def build_named(names: Iterable[str], phases: Phases) -> None:
    """Build those that have a name in the lab and have not been built yet. Raises what `build` raises."""
    for recipe in filter(None, map(source_kernels.find, dict.fromkeys(names))):
        if not source_kernels.is_there(recipe):
            build(Order(recipe.source, debug=recipe.debug), phases)


def source_tree(source: str, phases: Phases) -> Path:
    """The folder of a source tree; that of a Debian package, or of one of the lab's kernels, is unpacked into
    the cache. BadRequestError.
    """
    if recipe := next((each for each in recipes.kernels().kernel if each.name == source), None):
        with phases.phase(PhaseName.FETCH_SOURCE, kernel=source):
            return _only_tree(source, lab.cache(phases).ensure(_lab_source(recipe)))
    if _PACKAGE.fullmatch(source) and not Path(source).is_dir():
        return _fetched(source, phases)
    tree = Path(source).expanduser()
    if not (tree / "Kconfig").is_file() or not (tree / "Makefile").is_file():
        hint = "name the folder of a kernel's source, a Debian package such as linux-source-6.12, or 7.x"
        raise BadRequestError(f"{source or 'nothing'} is no source tree of a kernel", hint)
    if (tree / "include/config").is_dir() or (tree / ".config").is_file():
        raise BadRequestError(
            f"{tree} was built in place, so that nothing can be built from it elsewhere",
            f"`make -C {tree}` builds it again, `make -C {tree} mrproper` cleans it",
        )
    return tree.absolute()


def _fetched(package: str, phases: Phases) -> Path:
    version = _newest(package)
    artifact = Artifact(
        "linux-source", {"package": package, "version": version}, lambda out: _unpack(package, out)
    )
    with phases.phase(PhaseName.FETCH_SOURCE, package=package, version=version):
        return _only_tree(package, lab.cache(phases).ensure(artifact))


def _only_tree(source: str, folder: Path) -> Path:
    found = [each.parent for each in sorted(folder.glob("*/Kconfig"))]
    if len(found) != 1:
        raise CommandError(f"the source of {source} holds {len(found)} trees, not 1")
    return found[0]


def _lab_source(kernel: KernelRecipe) -> Artifact:
    """What one of the lab's kernels is built of: the source package of its suite, whatever this computer's
    own suite is.
    """
    newer = ("linux-*",) if kernel.backports else ()

    def unpack(out: Path) -> None:
        _unpack_archive(kernel.name, out / roots.TREE, out)
        shutil.rmtree(out / roots.TREE)

    return roots.unpacked_artifact(
        "linux-source", RootRecipe(suite=kernel.suite, packages=("linux-source",), backports=newer), unpack
    )


def _newest(package: str) -> str:
    try:
        said = _said(["apt-cache", "show", "--no-all-versions", package])
    except CommandError as error:
        raise BadRequestError(
            f"no Debian package {package}", "`apt-cache search linux-source` lists them"
        ) from error
    match = re.search(r"^Version: (\S+)$", said, re.MULTILINE)
    depends = re.search(r"^Depends: (linux-source-\S+)", said, re.MULTILINE)
    if depends and package == "linux-source":
        return _newest(depends[1])
    return match[1] if match else ""


def _unpack(package: str, out: Path) -> None:
    log = out / "build.log"
    with tempfile.TemporaryDirectory(prefix="multiroot-source-", dir=out) as scratch:
        proc.run(["apt-get", "-q", "download", package], cwd=Path(scratch), log=log, timeout=_FETCH_S)
        (deb,) = sorted(Path(scratch).glob("*.deb"))
        proc.run(["dpkg-deb", "-x", deb, scratch], log=log, timeout=_FETCH_S)
        _unpack_archive(package, Path(scratch), out)


def _unpack_archive(source: str, folder: Path, out: Path) -> None:
    log = out / "build.log"
    archives = sorted(folder.glob("usr/src/*.tar.*"))
    if not archives:
        raise CommandError(f"{source} holds no archive of a source", f"log: {log}")
    proc.run(["tar", "-C", out, "-xf", archives[0]], log=log, timeout=_FETCH_S)


def _with_ours(tree: Path, ours: Path) -> Path:
    """The tree by links, with our modules among its drivers."""
    folder, lists = Path("drivers/multiroot"), ("Makefile", "Kconfig")
    link_tree(tree, ours, (folder, *(Path("drivers") / name for name in lists)))
    for path in source_files(built_in.sources()):
        put(ours / folder / path.relative_to(built_in.sources()), path.read_bytes())
    more = (f"obj-$(CONFIG_{built_in.OPTION}) += {folder.name}/\n", f'source "{folder}/Kconfig"\n')
    for name, line in zip(lists, more, strict=True):
        put(ours / "drivers" / name, (tree / "drivers" / name).read_bytes() + line.encode())
    return ours


def _configure(order: Order, tree: Path, out: Path, log: Path) -> None:
    """Ours again only if what is wanted has changed: then nothing is compiled again that need not be."""
    wishes = kernel_config.wishes()
    ours = kernel_config.fragment(order.features_wanted(), wishes.small, built_in=order.no_modules)
    wanted = ours + "".join(path.read_text() for path in order.more)
    base = order.base.read_text() if order.base else arch.current().kernel.defaults
    # A comment of a fragment, for Kconfig.
    wanted = f"# on top of {hashlib.sha256(base.encode()).hexdigest()}\n{wanted}"
    kept = out / _FRAGMENT
    make = ["make", "-s", "-C", str(tree), f"O={out}"]
    if not ((out / ".config").is_file() and kept.is_file() and kept.read_text() == wanted):
        if order.base:
            shutil.copy(order.base, out / ".config")
        else:
            proc.run([*make, arch.current().kernel.defaults], log=log, timeout=_CONFIGURE_S)
        fragment = out / ".multiroot-fragment"
        fragment.write_text(wanted)
        script = tree / "scripts/kconfig/merge_config.sh"
        merge: list[proc.Arg] = ["sh", script, "-m", "-O", out, out / ".config", fragment]
        proc.run(merge, cwd=tree, log=log, timeout=_CONFIGURE_S)
        kept.write_text(wanted)
    proc.run([*make, "olddefconfig"], log=log, timeout=_CONFIGURE_S)


def _compile(order: Order, tree: Path, out: Path, log: Path) -> None:
    jobs = order.jobs or len(os.sched_getaffinity(0))
    compiler = ["CC=ccache gcc"] if proc.find("ccache") else []
    argv = [
        "make",
        "-s",
        f"-j{jobs}",
        "-C",
        str(tree),
        f"O={out}",
        *compiler,
        arch.current().kernel.name,
        *(() if order.no_modules else ("modules",)),
    ]
    try:
        proc.run(argv, log=log, timeout=_COMPILE_S)
    except CommandError as error:
        raise CommandError(
            f"the kernel does not compile: {first_complaint(log, error.message)}", f"log: {log}"
        ) from error


def first_complaint(log: Path, otherwise: str) -> str:
    """The first line of a build's log that tells of an error."""
    lines = log.read_text(errors="replace").splitlines()
    at = next((at for at, line in enumerate(lines) if _COMPLAINT.search(line)), None)
    if at is None:
        return otherwise
    said = lines[at].strip()
    missing = [line.strip() for line in lines[:at] if _NO_PROGRAM.search(line)]
    return missing[-1] if missing and said.endswith("Error 127") else said


def _said(argv: Sequence[str]) -> str:
    return proc.run(argv, timeout=_CONFIGURE_S).stdout.strip()
