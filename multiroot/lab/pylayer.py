# SPDX-License-Identifier: GPL-2.0-or-later
"""The image's Python: PyPI dependencies, our C extension and our package, each an artifact of its own.

They are compiled ahead with the image's own interpreter; hashes are not checked at import time, since
nobody edits a read-only image.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from multiroot import ahead, arch, proc
from multiroot.lab import paths, roots
from multiroot.lab.artifacts import Artifact, digest_tree, source_files
from multiroot.lab.cache import Cache

PREFIX = "opt/multiroot"
_PIP = [sys.executable, "-m", "pip"]
_VERSION = "3.13"  # of the system root's Python
_CACHE_TAG = f"cpython-{_VERSION.replace('.', '')}"
_AGENT = ("multiroot.agent.daemon", "multiroot.agent.parts")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")  # of wheels, newest first


def dependencies_artifact(system: Artifact, cache: Cache, only: Collection[str] = ()) -> Artifact:
    """What pyproject.toml's `dependencies` name, or `only` these of them: wheels for the image's Python."""
    named: list[str] = _project()["dependencies"]
    wanted = [each for each in named if not only or re.split("[^a-z0-9.-]", each)[0] in only]
    return _wheels("python-dependencies", wanted, system, cache)


def workstation_artifact(system: Artifact, cache: Cache) -> Artifact:
    """The same with all that the lab and its tests import."""
    extras = _project()["optional-dependencies"]
    tools = [each for each in extras["dev"] if each.startswith("pytest")]
    return _wheels("python-workstation", [*_project()["dependencies"], *extras["lab"], *tools], system, cache)


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((paths.source_dir() / "pyproject.toml").read_text())["project"]
    return project


def _wheels(name: str, wanted: list[str], system: Artifact, cache: Cache) -> Artifact:
    def build(out: Path) -> None:
        names = [f"{platform}_{arch.current().machine}" for platform in _PLATFORMS]
        platforms = [word for name in names for word in ("--platform", name)]
        target = ["--python-version", _VERSION, "--target", str(out / PREFIX)]
        options = ["--quiet", "--no-compile", "--only-binary=:all:", *platforms, *target]
        proc.run([*_PIP, "install", *options, *wanted], log=out / "build.log", timeout=600)
        shutil.rmtree(out / PREFIX / "bin", ignore_errors=True)  # made for the workstation's interpreter
        _compile(cache.ensure(system), out, PREFIX)

    return Artifact(name, {"wanted": "\n".join(wanted), "system": system.digest}, build)


def extension_artifact() -> Artifact:
    """Our compiled extensions and the package's metadata: a wheel less the Python sources. One abi3
    build serves all.
    """
    source = paths.source_dir()
    compiled = ("setup.py", "pyproject.toml", "csrc/arena/**/*", "csrc/kmod/uapi/*")
    inputs = {"tree": digest_tree(source, compiled)}

    def build(out: Path) -> None:
        copy = out / "src"
        for path in source_files(
            source, ("setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc/**/*", "multiroot/**/*")
        ):
            target = copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        wheel = [*_PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
        proc.run(wheel, log=out / "build.log", timeout=600)
        shutil.unpack_archive(next(out.glob("*.whl")), out / "unpacked", "zip")
        for file in (out / "unpacked").rglob("*"):
            inside = file.relative_to(out / "unpacked")
            if file.is_file() and (file.suffix == ".so" or inside.parts[0].endswith(".dist-info")):
                target = out / PREFIX / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        for folder in (copy, out / "unpacked"):
            shutil.rmtree(folder)

    return Artifact("python-extension", inputs, build)


def package_artifact(system: Artifact, cache: Cache) -> Artifact:
    """Our Python sources, compiled."""
    source = paths.source_dir()

    def build(out: Path) -> None:
        for path in source_files(source, ("multiroot/**/*",)):
            target = out / PREFIX / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        _compile(cache.ensure(system), out, PREFIX)

    inputs = {"tree": digest_tree(source, ("multiroot/**/*",)), "system": system.digest}
    return Artifact("python-package", inputs, build)


def compile_ahead(tree: Path, log: Path) -> None:
    """In a whole image's `tree`, compile what the agent's dataclasses are made of (multiroot/ahead.py)."""
    ours = tree / PREFIX
    target = ours / "multiroot" / ahead.name(_CACHE_TAG)
    python = [*roots.loader_argv(tree, f"bin/python{_VERSION}"), "-m", "multiroot.ahead", str(target)]
    environment = {
        "PYTHONHOME": str(tree / "usr"),
        "PYTHONPATH": str(ours),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    proc.run([*python, *_AGENT], env=environment, log=log, timeout=600)


def _compile(system: Path, out: Path, prefix: str) -> None:
    """Byte-compile `out/prefix` with the image's interpreter, for use at `/prefix`."""
    tree = system / roots.TREE
    python = roots.loader_argv(tree, f"bin/python{_VERSION}")
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(out), "-p", "/"]
    environment = {"PYTHONHOME": str(tree / "usr"), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [*python, "-m", "compileall", *options, str(out / prefix)]
    proc.run(argv, env=environment, log=out / "build.log", timeout=600)
