# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot bench`: what is asked for, and what becomes of a run; nothing is measured."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.test_render import RUN
from cli.conftest import Run

from multiroot.bench.results import guard
from multiroot.errors import ConflictError
from multiroot.units import GIB, MIB

BENCHES = ("handoff", "launch", "memory", "scale", "link", "update")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options with which each bench was run; all find RUN."""
    seen: dict[str, Any] = {}

    def use(name: str) -> None:
        def work(options: Any, folder: Path, phases: object) -> Any:
            seen[name] = options
            folder.mkdir(parents=True)
            return replace(RUN, header=replace(RUN.header, options={"vms": [1], "ram": [GIB]}))

        monkeypatch.setattr(importlib.import_module(f"multiroot.bench.{name}"), "run", work)

    for name in BENCHES:
        use(name)
    return seen


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_as_tables(run: Run, asked: dict[str, Any], tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    done = run("bench", name, "--out", out, "--rounds", 2, "--new-kernel", "6.1", "--name", "mine")
    assert (done.code, done.err) == (0, "")
    assert "bench handoff" in done.out
    assert "left out: other: not here" in done.out
    assert "failed: copy, round 0: no end" in done.out
    assert f"every sample: {out}/samples.jsonl" in done.out
    assert sorted(path.name for path in out.glob("*.json")) == ["summary.json"]
    options = asked[name]
    assert (options.rounds, options.lab.name, options.lab.kernels) == (2, "mine", ("6.1",))


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_as_data(run: Run, asked: dict[str, Any], tmp_path: Path, name: str) -> None:
    done = run("bench", name, "--out", tmp_path / "out", "--json")
    data = json.loads(done.out)
    assert data["summary"]["ours"]["blackout_ns"]["median"] == 70e6
    assert data == json.loads((tmp_path / "out/summary.json").read_text())


@pytest.mark.parametrize("name", BENCHES)
def test_a_folder_that_cannot_be_one_is_refused_at_once(
    run: Run, asked: dict[str, Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    done = run("bench", name, "--out", tmp_path / "file/below")
    assert (done.code, done.out, asked) == (2, "", {})
    assert done.err == f"multiroot: {tmp_path}/file is a file (name a folder)\n"


def test_lists_are_read(run: Run, asked: dict[str, Any], tmp_path: Path) -> None:
    words = ("--ram", "128M,1G", "--machine", "q35,microvm,pcie=on", "--contenders", "in-place", "--vms", 3)
    run("bench", "handoff", "--out", tmp_path / "1", *words)
    options = asked["handoff"]
    assert (options.ram, options.contenders, options.vms) == ((128 * MIB, GIB), ("in-place",), 3)
    assert options.machine == ("q35", "microvm,pcie=on")
    run("bench", "scale", "--out", tmp_path / "2", "--vms", "1, 2", "--ram", "1G")
    assert (asked["scale"].vms, asked["scale"].ram) == ((1, 2), (GIB,))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("handoff", "--ram", "128M,lots"), "not a size: 'lots' (write it like 256M or 1G)"),
        (("memory", "--ram", "010M"), "not a size: '010M' (write it without the leading zero)"),
        (("scale", "--vms", "1,x"), "not a number from 1 to 16: 'x'"),
    ],
)
def test_refusals(run: Run, asked: dict[str, Any], words: tuple[str, ...], line: str) -> None:
    done = run("bench", *words)
    assert (done.code, done.out, done.err) == (2, "", f"multiroot: {line}\n")
    assert asked == {}


def test_a_bench_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: Any, folder: Path, phases: object) -> None:
        raise ConflictError("lab 'bench' runs already", "end it")

    monkeypatch.setattr(importlib.import_module("multiroot.bench.link"), "run", fail)
    done = run("bench", "link")
    assert (done.code, done.out, done.err) == (3, "", "multiroot: lab 'bench' runs already (end it)\n")


@pytest.mark.parametrize("words", [(), ("--record",)])
def test_quick(
    run: Run, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    file = tmp_path / "ratios.json"
    monkeypatch.setattr(guard, "FILE", file)
    done = run("bench", "quick", "--out", tmp_path / "out", *words)
    assert done.code == 0
    assert "Change against what was recorded" in done.out
    assert (asked["handoff"].contenders, asked["handoff"].rounds) == (guard.CONTENDERS, guard.ROUNDS)
    assert done.err == (f"recorded in {file}\n" if words else "")
    assert file.exists() == bool(words)
