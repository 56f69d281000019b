# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds suites of a kernel's own tests (tools/testing/selftests) for a lab machine.

They are linked statically, because they run in roots and guests with other libraries, and nothing is written
to the kernel's tree: suites with modules build those in the place where their source is, so they are built
in a copy.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import built_in, kernel_config, lab, paths
from multiroot.lab.artifacts import digest_tree
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.workbench.kernel_build import check_tools, first_complaint
from multiroot.workbench.link_tree import link_tree

SELFTESTS = Path("tools/testing/selftests")
_SOURCES = (f"{SELFTESTS}/**/*", "tools/include/**/*", "include/uapi/**/*", "arch/*/include/uapi/**/*")
_LIST, _SETTINGS, _HELPERS = "kselftest-list.txt", "settings", "kselftest"
_RELEASE = "include/config/kernel.release"  # where a kernel was built
_DEFAULT_S = 45  # kselftest/runner.sh, kselftest_default_timeout
_HEADERS_S, _BUILD_S = 600.0, 3600.0
# Some tests have functions of their own that the library has, too: the first of two is taken.
_STATIC = "-static -Wl,--allow-multiple-definition"
_NAME = re.compile(r"[\w./-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class Wish:
    """A suite, and which of its tests; none: all."""

    suite: str
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A suite that was built. `folder` holds its programs and what they read, `helpers` what those of all
    suites read. `timeout_s` is how long a test may take by the suite's own word, 0: as long as it likes.
    `modules_of` is the release of the kernel that its modules are for, "" if it has none. `missing` is why
    there is no suite, or "".
    """

    name: str
    folder: Path
    helpers: Path
    tests: tuple[str, ...] = ()
    timeout_s: int = _DEFAULT_S
    missing: str = ""
    modules_of: str = ""

    def shared(self) -> list[Path]:
        """What lies beside its tests, by its place in the folder."""
        everything = (each.relative_to(self.folder) for each in sorted(self.folder.rglob("*")))
        listed = set((self.folder / ALL).read_text().split())
        return [each for each in everything if (self.folder / each).is_file() and str(each) not in listed]

    def lacks(self, config: str) -> list[str]:
        """What the suite's `config` asks for and a kernel with this configuration has not. Nothing of one
        that does not tell its configuration ("").
        """
        asked = self.folder / "config"
        if not config or not asked.is_file():
            return []
        has = kernel_config.parse(config)
        return [
            f"CONFIG_{name}"
            for name, value in kernel_config.settings(asked.read_text()).items()
            if value in ("y", "m") and has.get(name, kernel_config.OFF) == kernel_config.OFF
        ]


ALL = ".multiroot-all"  # in a suite's folder: all of its tests, also those that nobody wants


def wishes(text: str) -> tuple[Wish, ...]:
    """What "timers,kvm:hyperv_cpuid" asks for. Raises BadRequestError."""
    found: dict[str, list[str]] = {}
    whole: set[str] = set()
    for word in filter(None, (each.strip() for each in text.split(","))):
        if not _NAME.fullmatch(word) or ".." in word:
            raise BadRequestError(f"no kselftest {word!r}", "SUITE or SUITE:TEST, with commas between")
        suite, _, test = word.partition(":")
        tests = found.setdefault(suite, [])
        if test:
            tests.append(test)
        else:
            whole.add(suite)
    if not found:
        raise BadRequestError("no kselftest is named", "`--kselftest timers,kvm`")
    return tuple(Wish(suite, () if suite in whole else tuple(tests)) for suite, tests in found.items())


@dataclass(frozen=True)
class Trees:
    """Where the tests' source is, and the folder in which their kernel was built, for their modules."""

    source: Path
    build: Path

    @property
    def in_place(self) -> bool:
        """Whether a kernel was built in the source tree: then nothing of it can be made elsewhere."""
        return (self.source / ".config").is_file()


def trees(kernels: Sequence[str], source: Path | None) -> Trees:
    """The source tree `source`, or that in which the first of `kernels` that has one was built. Raises
    BadRequestError.
    """
    builds = [lab.own(each).build for each in dict.fromkeys(kernels) if lab.is_path(each)]
    if source:
        found = source.expanduser().absolute()
        return Trees(_checked(found), builds[0] if builds else found)
    for build in builds:
        # Kbuild leaves this link in an O= folder.
        tree = (build / "source").resolve() if (build / "source").exists() else build
        if (tree / SELFTESTS).is_dir():
            return Trees(tree, build)
    raise BadRequestError(
        "no source tree to build kselftests from",
        "name a kernel by the folder in which it was built, or --kselftest-tree DIR",
    )


def _checked(tree: Path) -> Path:
    if not (tree / SELFTESTS / "lib.mk").is_file():
        raise BadRequestError(f"{tree} holds no {SELFTESTS}", "name the source tree of a kernel")
    return tree


def digest(source: Path) -> str:
    """Of all that tests are built from in a kernel's source: suites use files of one another."""
    return digest_tree(source, _SOURCES)


def build(found: Trees, wanted: Sequence[Wish], phases: Phases) -> list[Suite]:
    """Build them; what was built before is made again only where its source has changed. Raises
    BadRequestError for tests that a suite does not have, and CommandError with the compiler's complaint.
    """
    check_tools({"rsync": "rsync"})
    name = re.sub(r"\W+", "-", str(found.source)).strip("-")
    work = paths.cache_dir() / "kselftest" / name
    paths.make_dir(work)
    log = work / "build.log"
    log.write_text("")
    with phases.phase(PhaseName.BUILD_KSELFTESTS, tree=str(found.source)):
        shadow = _shadow(found.source, work / "tree", log)
        _headers(found, work, log)
        return [_suite(each, found, shadow, work, log) for each in wanted]


def _shadow(source: Path, shadow: Path, log: Path) -> Path:
    """A tree that is `source` by links, but for a copy of the tests. What was there and did not change keeps
    its time, so that make has nothing to do.
    """
    link_tree(source, shadow, (SELFTESTS,))
    copy = ["rsync", "-a", f"{source / SELFTESTS}/", f"{shadow / SELFTESTS}/"]
    proc.run(copy, log=log, timeout=_HEADERS_S)
    return shadow


def _headers(found: Trees, work: Path, log: Path) -> None:
    """The headers of this very kernel, in `work`/usr."""
    usr = work / "usr"
    if usr.is_symlink():
        usr.unlink()
    out = [] if found.in_place else [f"O={work}"]
    proc.run(["make", "-s", "-C", found.source, *out, "headers"], log=log, timeout=_HEADERS_S)
    if found.in_place:
        shutil.rmtree(usr, ignore_errors=True)
        usr.symlink_to(found.source / "usr")


def _suite(wish: Wish, found: Trees, shadow: Path, work: Path, log: Path) -> Suite:
    installed = work / "installed"
    folder, helpers = installed / wish.suite, installed / _HELPERS
    if missing := _why_none(shadow / SELFTESTS / wish.suite, found.build):
        return Suite(wish.suite, folder, helpers, wish.tests, missing=missing)
    shutil.rmtree(folder, ignore_errors=True)
    argv: list[proc.Arg] = [
        "make",
        "-s",
        f"-j{len(os.sched_getaffinity(0))}",
        "-C",
        shadow / SELFTESTS,
        f"O={work}",
        f"TARGETS={wish.suite}",
        "FORCE_TARGETS=1",
        f"USERLDFLAGS={_STATIC}",
        # With an O= of its own: that above goes to every make below, and the kernel's folder is another one.
        f"KDIR={found.build} O={found.build}",
        f"KSFT_INSTALL_PATH={installed}",
        "install",
    ]
    try:
        proc.run(argv, log=log, timeout=_BUILD_S)
    except CommandError as error:
        raise CommandError(
            f"kselftest {wish.suite} does not build: {first_complaint(log, error.message)}", f"log: {log}"
        ) from error
    listed = [line.partition(":") for line in (installed / _LIST).read_text().split()]
    there = [test for suite, _, test in listed if suite == wish.suite]
    (folder / ALL).write_text("\n".join(there))
    if strange := [test for test in wish.tests if test not in there]:
        raise BadRequestError(
            f"kselftest {wish.suite} has no test {strange[0]!r}", f"there is {', '.join(there)}"
        )
    tests = wish.tests or tuple(there)
    release = (found.build / _RELEASE).read_text().strip() if any(folder.rglob("*.ko")) else ""
    return Suite(wish.suite, folder, helpers, tests, _timeout(folder / _SETTINGS), modules_of=release)


def _why_none(suite: Path, build: Path) -> str:
    """Why nothing of a suite can be run, or ""."""
    makefile, config = suite / "Makefile", build / ".config"
    if makefile.is_file():
        modular = not config.is_file() or built_in.loads_modules(config)
        needs = "TEST_GEN_MODS_DIR" in makefile.read_text()
        return "it builds modules, and the kernel loads none" if needs and not modular else ""
    scripts = ", ".join(each.name for each in sorted(suite.glob("*.sh")))
    if scripts:
        return (
            f"its tests are not built to be installed: {scripts} of the tree starts them in a VM of its own"
        )
    return "the tree has no such suite"


def _timeout(settings: Path) -> int:
    match = re.search(r"^timeout=(\d+)", settings.read_text(), re.MULTILINE) if settings.exists() else None
    return int(match[1]) if match else _DEFAULT_S
