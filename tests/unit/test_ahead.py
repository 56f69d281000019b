# SPDX-License-Identifier: GPL-2.0-or-later
"""Dataclasses whose methods were compiled ahead are like others, and compile nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHAPES = """
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0

@dataclass(order=True)
class Named:
    name: str
    tags: list[str] = field(default_factory=list, repr=False)
"""

LOOK = """
import inspect
import shapes
point = shapes.Point(1)
print(point, point == shapes.Point(1, 0), hash(point) == hash(shapes.Point(1)))
print(inspect.signature(shapes.Point))
print(shapes.Named("a") < shapes.Named("b"), shapes.Named("a"), shapes.Named.__init__.__annotations__)
try:
    point.x = 2
except AttributeError as error:
    print(type(error).__name__, error)
"""

NOTHING_IS_COMPILED = """
import builtins
usual = builtins.compile
def refuse(text, name, *args, **options):
    if name == "<string>":
        raise AssertionError("compiled")
    return usual(text, name, *args, **options)
builtins.compile = refuse
"""


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])}
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shapes.py").write_text(SHAPES)
    made = python(tmp_path, "-m", "multiroot.ahead", str(tmp_path / "codes"), "shapes")
    assert made.returncode == 0, made.stderr
    return tmp_path


def use(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    begin = (
        f"from pathlib import Path; from multiroot import ahead; ahead.use(Path({str(folder / 'codes')!r}))\n"
    )
    return python(folder, "-c", begin + code)


def test_what_was_compiled_ahead_is_not_compiled_again_and_makes_the_same_classes(folder: Path) -> None:
    usual = python(folder, "-c", LOOK)
    assert usual.returncode == 0, usual.stderr
    ahead = use(folder, "import inspect\n" + NOTHING_IS_COMPILED + LOOK)
    assert (ahead.stdout, ahead.stderr) == (usual.stdout, "")


def test_a_class_that_has_changed_since_is_compiled_as_ever(folder: Path) -> None:
    (folder / "shapes.py").write_text(SHAPES.replace("y: int = 0", "y: int = 0\n    z: int = 3"))
    usual, ahead = python(folder, "-c", LOOK), use(folder, LOOK)
    assert "z=3" in ahead.stdout
    assert (ahead.stdout, ahead.stderr) == (usual.stdout, "")
    assert "AssertionError: compiled" in use(folder, "import inspect\n" + NOTHING_IS_COMPILED + LOOK).stderr


def test_without_such_a_file_nothing_changes(folder: Path) -> None:
    (folder / "codes").unlink()
    assert use(folder, LOOK).stdout == python(folder, "-c", LOOK).stdout
