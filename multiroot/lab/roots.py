# SPDX-License-Identifier: GPL-2.0-or-later
"""How Debian trees are made (mmdebstrap) and how programs inside them are run without installing anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import BadRequestError
from multiroot.lab import paths
from multiroot.lab.artifacts import Artifact
from multiroot.lab.recipes import RootRecipe

TREE = "tree"
_OPTIONS = (
    "--mode=root",
    "--format=directory",
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "0"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


def artifact(name: str, recipe: RootRecipe) -> Artifact:
    """The tree a recipe asks for. Its digest covers the recipe, not the archive's state: see `lab build
    --refresh`.
    """
    hooks = paths.recipes_dir() / "roots"
    argv = _mmdebstrap(recipe, hooks)
    inputs = {"command": proc.quote(argv).replace(str(hooks), "")}
    inputs |= {hook: (hooks / hook).read_text() for hook in recipe.hooks}
    return Artifact(f"root-{name}", inputs, lambda out: _build(argv, out))


def unpacked_artifact(name: str, recipe: RootRecipe, finish: Callable[[Path], None]) -> Artifact:
    """The files of a recipe's packages and of all that they need, as `finish` leaves them in the artifact's
    folder, with the tree in `TREE`. Nothing in the tree can be run.
    """
    argv = _mmdebstrap(recipe, paths.recipes_dir() / "roots", "extract")

    def build(out: Path) -> None:
        _build(argv, out)
        finish(out)

    return Artifact(name, {"command": proc.quote(argv)}, build)


def _mmdebstrap(recipe: RootRecipe, hooks: Path, variant: str = "minbase") -> list[str]:
    argv = ["mmdebstrap", _OPTIONS[0], f"--variant={variant}", *_OPTIONS[1:]]
    if recipe.backports:
        newer = f"{recipe.suite}-backports"
        add = f"s/ {recipe.suite} main/ {newer} main/p"
        pin = f"Package: {' '.join(recipe.backports)}\\nPin: release n={newer}\\nPin-Priority: 990\\n"
        argv += [
            f'--setup-hook=sed -n "{add}" "$1"/etc/apt/sources.list >> "$1"/etc/apt/sources.list',
            f'--setup-hook=printf "{pin}" > "$1"/etc/apt/preferences.d/multiroot',
        ]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude]
    argv += [f"--customize-hook={hooks / hook}" for hook in recipe.hooks]
    return [*argv, f"--include={','.join(recipe.packages)}", recipe.suite]


def _build(argv: list[str], out: Path) -> None:
    if os.geteuid() != 0:
        raise BadRequestError(
            "building the lab needs root", "run it once through sudo, later runs need no root"
        )
    for program in ("mmdebstrap", "dpkg-deb"):
        if not proc.find(program):
            raise BadRequestError(f"{program} is missing", "'make setup' installs it")
    proc.run([*argv, out / TREE], log=out / "build.log", timeout=1200, env={"LC_ALL": "C.UTF-8"})


def loader_argv(tree: Path, program: str, preload: Path | None = None) -> list[str]:
    """Command prefix that runs `program` of `tree` with the tree's own dynamic loader and libraries.

    The library `preload`, if any, is loaded before all others.
    """
    machine = arch.current().lab
    libraries = tree / machine.libraries
    return [
        str(libraries / machine.loader),
        "--library-path",
        str(libraries),
        *(["--preload", str(preload)] if preload else []),
        str(tree / "usr" / program),
    ]


def chroot_run(tree: Path, argv: list[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a program inside `tree` as root; output goes to `log`. Raises CommandError."""
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LC_ALL": "C", **(env or {})}
    words = [f"{key}={value}" for key, value in clean.items()]
    # objtool of recent kernels reads /proc; the mount goes with the namespace.
    private = ["unshare", "--mount", f"--mount-proc={tree / 'proc'}"]
    proc.run([*private, "chroot", tree, "/usr/bin/env", "-i", *words, *argv], log=log, timeout=600)
