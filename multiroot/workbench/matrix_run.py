# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the cells of a matrix, each in a process and a lab of its own, and keeps what they leave in a
folder.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from multiroot import json_files, proc
from multiroot.errors import MultirootError
from multiroot.lab import paths
from multiroot.workbench.matrix import (
    PAGE,
    RESULT,
    UNFINISHED,
    Cell,
    Matrix,
    Result,
    arguments,
    cells,
    load,
)
from multiroot.workbench.matrix_page import FILES, page

_END_S = 60.0  # seconds that a trial which is told to end may take to end its lab
Command = Callable[[Matrix, Cell, Path], list[str]]


def command(matrix: Matrix, cell: Cell, folder: Path) -> list[str]:
    """The process that plays a cell."""
    words = arguments(matrix, cell)
    at = words.index("--")
    own = ["--name", cell.lab, "--json", str(folder / "report.json")]
    own += ["--junit", str(folder / "junit.xml"), "--logs", str(folder)]
    return [sys.executable, "-m", "multiroot.cli.main", "try", *words[:at], *own, *words[at:]]


class Run:
    """One run over a matrix; `told` hears of each result."""

    def __init__(
        self,
        matrix: Matrix,
        folder: Path,
        digests: dict[Cell, str],
        told: Callable[[Result], object],
        make: Command = command,
    ) -> None:
        self._matrix = matrix
        self._folder = folder
        self._digests = digests
        self._told = told
        self._make = make
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def play(self, wanted: Sequence[Cell], jobs: int) -> list[Result]:
        """Play these cells, `jobs` at a time; the results of all. One that is interrupted goes on the next
        time.
        """
        paths.make_dir(self._folder)
        (self._folder / UNFINISHED).touch()
        # What an earlier run has left of these is not to be taken for this one's when it is interrupted.
        for cell in wanted:
            (self._folder / cell.name / RESULT).unlink(missing_ok=True)
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for result in pool.map(self._cell, wanted):
                    self._told(result)
                    self.write_page()
            except BaseException:
                self._stop()
                raise
        (self._folder / UNFINISHED).unlink()
        self.write_page()
        return self.results()

    def results(self) -> list[Result]:
        """What there is of every cell."""
        return [load(self._folder, cell) for cell in cells(self._matrix)]

    def write_page(self) -> Path:
        """The page with all that is known by now."""
        results = self.results()
        there = frozenset(
            f"{each.cell.name}/{name}"
            for each in results
            for name in FILES
            if (self._folder / each.cell.name / name).exists()
        )
        path = self._folder / PAGE
        path.write_text(page(self._matrix, results, there), encoding="utf-8")
        return path

    def _cell(self, cell: Cell) -> Result:
        if self._stopped:
            raise _interrupted()
        folder = self._folder / cell.name
        paths.make_dir(folder)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        began = time.monotonic()
        code = self._run(self._make(self._matrix, cell, folder), folder)
        if self._stopped:
            raise _interrupted()
        said = (folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
        seconds = round(time.monotonic() - began, 1)
        # A process that a signal has ended says nothing of a kernel.
        result = Result(
            cell, code if code >= 0 else 125, self._digests[cell], seconds, said[-1] if said else ""
        )
        data = {"code": result.code, "digest": result.digest, "seconds": seconds, "said": result.said}
        json_files.write(folder / RESULT, data, 0o644)
        return result

    def _run(self, argv: list[str], folder: Path) -> int:
        process = proc.spawn(argv, log=folder / "stderr.txt", piped=True)
        self._alive.add(process)
        if self._stopped:  # in between: `_stop` may not have seen it
            process.send_signal(signal.SIGTERM)
        assert process.stdout
        with process, (folder / "stdout.txt").open("wb") as out:
            shutil.copyfileobj(process.stdout, out)
        self._alive.discard(process)
        return process.returncode

    def _stop(self) -> None:
        """Tell all that run to end, which ends their labs."""
        self._stopped = True
        alive = list(self._alive)
        for process in alive:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + _END_S
        for process in alive:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def _interrupted() -> MultirootError:
    return MultirootError("the matrix was interrupted", "the same command goes on with it")


def code_of(results: Sequence[Result]) -> int:
    """1 if any cell is bad, 125 if one could not be tested and none is bad, else 0."""
    codes = {each.code for each in results}
    if codes - {0, 125, None}:
        return 1
    return 125 if codes & {125, None} else 0
