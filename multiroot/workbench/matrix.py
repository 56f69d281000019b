# SPDX-License-Identifier: GPL-2.0-or-later
"""Many trials from one file: which there are, and what each depends on.

A matrix is a TOML file with lists for `old`, `new`, `machine`, `backend`, `guest` and `in`. Each combination
is a cell.
What else it may hold (`until`, `command`, `append_old`, ...) is the same for all cells.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from multiroot.errors import BadRequestError
from multiroot.lab import kernels, lab, paths, recipes
from multiroot.lab.artifacts import digest_tree
from multiroot.lab.backends import Backend
from multiroot.lab.recipes import Recipe, Size
from multiroot.workbench import carry, kselftest
from multiroot.workbench.allowed import allow_list_of
from multiroot.workbench.wanted import Until, Where

USUAL = "default"  # the kernel that the lab's guests have, as "default" is its usual machine
# What makes cells: names in the file, and the fields of a matrix and of a cell, in the order of these.
_AXES = {
    "old": "old",
    "new": "new",
    "machine": "machine",
    "backend": "backend",
    "guest": "guest",
    "in": "where",
}
_LAB_NAME = 60  # characters: sockets lie in a folder of that name, and their paths are short
_SOURCES = ("multiroot/**/*.py", "csrc/**/*", "qemu-lab/**/*")


def _several(value: object) -> object:
    """One word is a list of one."""
    return [value] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]


class Matrix(Recipe):
    """The file. `without` are combinations to leave out: what of a cell they name has to be so."""

    old: Words
    new: Words
    machine: Words = ("default",)
    backend: Words = (Backend.DEFAULT.value,)
    guest: Words = (USUAL,)
    where: Annotated[Words, Field(alias="in")] = (Where.NEW.value,)
    until: str = Until.HANDOVER.word
    command: tuple[str, ...] = ()
    kselftest: str = ""
    kselftest_tree: str = ""
    carry: tuple[str, ...] = ()
    append_old: str = ""
    append_new: str = ""
    append_guest: str = ""
    timeout: float | None = Field(gt=0, allow_inf_nan=False, default=None)
    patience: float | None = Field(ge=1, allow_inf_nan=False, default=None)
    join_timeout: int = Field(ge=0, le=86400, default=0)
    carve: Size | None = None
    repeat: int = Field(ge=1, le=1000, default=1)
    retries: int = Field(ge=0, le=10, default=0)
    allow: tuple[str, ...] = ()
    without: tuple[dict[str, str], ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Matrix:
        for name, values, known in (
            ("in", self.where, [each.value for each in Where]),
            ("backend", self.backend, [each.value for each in Backend]),
            ("until", (self.until,), [each.word for each in Until]),
        ):
            if strange := [each for each in values if each not in known]:
                raise ValueError(f"no {name} {strange[0]!r}, there is {', '.join(known)}")
        keys = set(_AXES)
        if strange := sorted({key for each in self.without for key in each} - keys):
            raise ValueError(f"without: no {strange[0]!r}, there is {', '.join(sorted(keys))}")
        return self


@dataclass(frozen=True)
class Cell:
    """One trial of a matrix."""

    old: str
    new: str
    machine: str
    backend: str
    guest: str
    where: str

    @property
    def name(self) -> str:
        """For files."""
        return f"{self._plain}_{self._told}"

    @property
    def lab(self) -> str:
        """A name for its lab; a long one is cut, but is no other cell's."""
        most = _LAB_NAME - len(f"matrix-_{self._told}")
        return f"matrix-{self._plain[:most]}_{self._told}"

    @property
    def _words(self) -> tuple[str, ...]:
        return (self.old, self.new, self.machine, self.backend, self.guest, self.where)

    @property
    def _plain(self) -> str:
        plain = (
            "".join(c if c.isalnum() or c in ".-" else "_" for c in Path(each).name) for each in self._words
        )
        return "_".join(plain)

    @property
    def _told(self) -> str:
        """What tells it from cells whose words look alike."""
        return hashlib.sha256(repr(self._words).encode()).hexdigest()[:6]

    def has(self, values: dict[str, str]) -> bool:
        """Whether it is one of those that `values` means."""
        return all(getattr(self, _AXES[key]) == value for key, value in values.items())


def read(path: Path) -> Matrix:
    """The file; names that nobody knows are refused, before anything runs. Raises BadRequestError."""
    if path.is_dir():
        raise BadRequestError(f"{path} is a folder", "name a matrix in TOML")
    if not path.is_file():
        raise BadRequestError(f"there is no file {path}", "a matrix is a TOML file with old, new and command")
    matrix = recipes.read(path, Matrix)
    for kernel in (*matrix.old, *matrix.new, *(each for each in matrix.guest if each != USUAL)):
        lab.check_names(lab.Options(kernel=kernel))
    for machine in matrix.machine:
        recipes.machine(machine)
    _check_without(path, matrix)
    if not cells(matrix):
        raise BadRequestError(f"{path}: no cell is left", "`without` leaves all of them out")
    _check_files(matrix)
    return matrix


def _axes(matrix: Matrix) -> dict[str, tuple[str, ...]]:
    """The values of each axis, by its name in the file."""
    return {name: getattr(matrix, field) for name, field in _AXES.items()}


def _check_without(path: Path, matrix: Matrix) -> None:
    there = _axes(matrix)
    for each in matrix.without:
        for key, value in each.items():
            if value not in there[key]:
                raise BadRequestError(
                    f"{path}: without: no cell has {key} = {value!r}", f"there is {', '.join(there[key])}"
                )


def _check_files(matrix: Matrix) -> None:
    """What each trial would refuse, refused before the first of them."""
    if set(matrix.where) != {Where.WORKSTATION.value}:
        carry.check(matrix.command, [Path(each) for each in matrix.carry])
    for each in matrix.allow:
        allow_list_of(Path(each))
    if matrix.kselftest:
        kselftest.wishes(matrix.kselftest)
        if matrix.command:
            raise BadRequestError("kselftest runs in place of command", "leave one of them out")
    if matrix.kselftest_tree:
        if not matrix.kselftest:
            raise BadRequestError("kselftest_tree is for kselftest", '`kselftest = "timers"`')
        kselftest.trees((), Path(matrix.kselftest_tree))


def cells(matrix: Matrix) -> list[Cell]:
    """Every combination that is not left out."""
    product = itertools.product(*_axes(matrix).values())
    made = [Cell(*words) for words in product]
    return [each for each in made if not any(each.has(values) for values in matrix.without)]


def arguments(matrix: Matrix, cell: Cell) -> list[str]:
    """The words of the `multiroot try` that plays a cell, without those that say where results go."""
    words = ["--old", cell.old, "--new", cell.new, "--machine", cell.machine, "--in", cell.where]
    words += ["--guest", cell.guest] if cell.guest != USUAL else []
    words += ["--backend", cell.backend] if cell.backend != USUAL else []
    if cell.where == Where.OLD.value and matrix.until == Until.UPDATE.word:
        raise BadRequestError('until = "update" leaves no old root for in = "old"')
    words += ["--until", matrix.until, "--repeat", str(matrix.repeat), "--retries", str(matrix.retries)]
    words += ["--append-old", matrix.append_old, "--append-new", matrix.append_new]
    words += ["--append-guest", matrix.append_guest] if matrix.append_guest else []
    words += [word for path in matrix.carry for word in ("--carry", path)]
    words += [word for path in matrix.allow for word in ("--allow", path)]
    words += ["--timeout", str(matrix.timeout)] if matrix.timeout else []
    words += ["--patience", str(matrix.patience)] if matrix.patience else []
    words += ["--join-timeout", str(matrix.join_timeout)] if matrix.join_timeout else []
    words += ["--carve", str(matrix.carve)] if matrix.carve else []
    words += ["--kselftest", matrix.kselftest] if matrix.kselftest else []
    words += ["--kselftest-tree", matrix.kselftest_tree] if matrix.kselftest_tree else []
    return [*words, "--", *matrix.command]


def digests(matrix: Matrix) -> dict[Cell, str]:
    """Of all that the result of each cell depends on. Raises BadRequestError."""
    ours, tests = own_digest(), functools.cache(kselftest.digest)
    return {cell: digest(matrix, cell, ours, tests) for cell in cells(matrix)}


def digest(matrix: Matrix, cell: Cell, ours: str, tests: Callable[[Path], str] = kselftest.digest) -> str:
    """Of one; `ours` is `own_digest`, and `tests` digests those of a kernel's source."""
    inputs: dict[str, Any] = {"arguments": arguments(matrix, cell), "multiroot": ours}
    inputs["machine"] = _file(recipes.machine_file(cell.machine))
    for side in ("old", "new", "guest"):
        name = getattr(cell, side)
        inputs[side] = _kernel(recipes.kernels().guest if name == USUAL else name)
    if matrix.kselftest:
        source = Path(matrix.kselftest_tree) if matrix.kselftest_tree else None
        inputs["kselftest"] = tests(kselftest.trees((cell.new, cell.old), source).source)
    # In a root no file of ours is there but those that are carried in.
    own = matrix.command if cell.where == Where.WORKSTATION.value else matrix.command[:1]
    # Path.is_file raises for words that are too long for a name.
    named = [word for word in own if os.path.isfile(word)]  # noqa: PTH113
    files = [*named, *matrix.carry, *matrix.allow]
    inputs["files"] = {path: _file(Path(path)) for path in files}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def own_digest() -> str:
    """Of our own code and recipes."""
    return digest_tree(paths.source_dir(), _SOURCES)


def _kernel(text: str) -> str:
    if lab.is_path(text):
        source = lab.own(text)
        return f"{source.sha256} {source.stamp()}"
    known = {each.name: each for each in recipes.kernels().kernel}
    recipe = known[lab.kernel_name(text)]
    return kernels.root_artifact(recipe, recipes.roots().for_kernel(recipe.flavour)).digest


def _file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadRequestError(f"cannot read {path}: {error.strerror}") from error


def at_once(matrix: Matrix, cpus: int | None = None) -> int:
    """How many trials this computer can play at a time: two if it has CPUs for two machines, else one."""
    have = cpus if cpus is not None else len(os.sched_getaffinity(0))
    want = max(recipes.machine(each).cpus for each in matrix.machine)
    return 2 if have >= 2 * want else 1


@dataclass(frozen=True)
class Result:
    """What came of a cell; `code` is the trial's, None while there is none."""

    cell: Cell
    code: int | None
    digest: str = ""
    seconds: float = 0.0
    said: str = ""  # the last line on stderr

    @property
    def word(self) -> str:
        """In one word."""
        if self.code is None:
            return "not yet"
        return {0: "good", 125: "not tested"}.get(self.code, "bad")


def load(folder: Path, cell: Cell) -> Result:
    """What an earlier run has left of a cell; one without a code if nothing, or nothing whole."""
    try:
        data = json.loads((folder / cell.name / RESULT).read_text())
        return Result(cell, int(data["code"]), str(data["digest"]), float(data["seconds"]), str(data["said"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Result(cell, None)


RESULT, PAGE, UNFINISHED = "result.json", "index.html", "unfinished"


def to_do(folder: Path, matrix: Matrix, digests: dict[Cell, str], *, changed: bool) -> list[Cell]:
    """The cells to play: those that are not done if a run was interrupted, or with `changed` those whose
    inputs are others; else all. What could not be tested is never done.
    """
    resumed = (folder / UNFINISHED).exists()
    return [
        cell for cell in cells(matrix) if not (changed or resumed) or not _done(load(folder, cell), digests)
    ]


def _done(result: Result, digests: dict[Cell, str]) -> bool:
    return result.code not in (None, 125) and result.digest == digests[result.cell]


def rows(matrix: Matrix, results: Sequence[Result]) -> Iterator[tuple[Cell, Result]]:
    """Each cell with its result, in the matrix's order."""
    known = {each.cell: each for each in results}
    for cell in cells(matrix):
        yield cell, known.get(cell, Result(cell, None))
