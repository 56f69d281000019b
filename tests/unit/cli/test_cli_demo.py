# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot demo` and `multiroot lab generations`: what is asked for, shown, and how they end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as tree

import pytest
from cli.conftest import Run
from demo.test_demo_report import GOOD, GUEST

from multiroot.cli import generations as command
from multiroot.demo import scenario
from multiroot.demo.device import Frames
from multiroot.demo.generations import CardSeen, Generation, Inventory
from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.lab import lab as labs
from multiroot.lab import machine as machines
from multiroot.units import GIB, MIB


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[scenario.Options]:
    """What demos were asked for; all of them end well."""
    seen: list[scenario.Options] = []

    def play(options: scenario.Options, phases: object) -> object:
        seen.append(options)
        return GOOD

    monkeypatch.setattr(scenario, "run", play)
    return seen


def test_demo(run: Run, asked: list[scenario.Options]) -> None:
    done = run("demo", "--vms", 2, "--vm-memory", "512M", "--carve", "1G", "--cpus", "2-3", "--name", "mine")
    assert (done.code, done.err) == (0, "")
    assert "everything held" in done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["freeze", "old", "root", "0.000", "0.0", "inside"] in rows
    assert ["vm1", "256", "MiB", "0", "B", "240000", "B", "61.0", "81.0"] in [row[:9] for row in rows]
    (options,) = asked
    assert (options.vms, options.vm_memory, options.carve, options.cpus) == (2, 512 * MIB, GIB, "2-3")
    assert (options.lab.name, options.lab.carve, options.lab.vms) == ("mine", GIB, 2)


@pytest.mark.usefixtures("asked")
def test_demo_as_data(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--json", "-")
    assert json.loads(done.out) == GOOD.to_json()
    done = run("demo", "--json", tmp_path / "report")
    assert json.loads((tmp_path / "report").read_text()) == GOOD.to_json()
    assert "everything held" in done.out


def test_a_demo_that_did_not_hold(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "run", lambda options, phases: replace(GOOD, resets=1))
    done = run("demo", "--keep")
    assert done.code == 1
    assert "not everything held" in done.out
    assert done.err == "the lab runs on; end it with `multiroot lab down --name demo`\n"


def test_a_demo_that_cannot_be_played(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("demo", "--vm-memory", "lots")
    assert (done.code, done.out, done.err) == (
        2,
        "",
        "multiroot: not a size: 'lots' (write it like 256M or 1G)\n",
    )

    def late(options: object, phases: object) -> None:
        raise WaitTimeoutError("the new root did not join")

    monkeypatch.setattr(scenario, "run", late)
    done = run("demo")
    assert (done.code, done.out, done.err) == (4, "", "multiroot: the new root did not join\n")


def test_demo_dry_run(run: Run, asked: list[scenario.Options], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "prepare", lambda options, phases: (None, None))
    monkeypatch.setattr(machines, "qemu_argv", lambda machine: ["qemu", "-append", "two words"])
    done = run("demo", "--dry-run", "--vms", 2, "--cpus", "2-3")
    assert (done.code, done.err, asked) == (0, "", [])
    lines = [line.strip() for line in done.out.splitlines()]
    assert lines[1] == "qemu -append 'two words'"
    assert lines[3].startswith(f"multiroot vm run vm1 --memory {256 * MIB} --address ")
    assert lines[5:] == [
        "multiroot root launch --kernel 6.12 --cpus 2-3",
        "multiroot handoff vm1",
        "multiroot handoff vm2",
    ]


def test_a_dry_run_as_data(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(labs, "prepare", lambda options, phases: (None, None))
    monkeypatch.setattr(machines, "qemu_argv", lambda machine: ["qemu"])
    for guest, last in (("ticker", "multiroot handoff vm1"), ("debian", "multiroot update --kernel 6.12")):
        done = run("demo", "--guest", guest, "--dry-run", "--json", "-")
        assert last in json.loads(done.out)["would_do"]
        done = run("demo", "--guest", guest, "--dry-run", "--json", tmp_path / "plan")
        assert last in json.loads((tmp_path / "plan").read_text())["would_do"]
        assert last in done.out


@pytest.mark.parametrize("words", [("--ktap",), ("--junit", "x.xml"), ("--guest", "debian", "--ktap")])
def test_a_dry_run_has_no_test_points(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("demo", "--dry-run", *words)
    assert (done.code, done.out) == (2, "")
    assert "a dry run finds nothing to judge" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
@pytest.mark.parametrize(("cpus", "others"), [("9", "9"), ("0-2", "0"), ("2-4", "4")])
def test_cpus_that_the_lab_machine_cannot_give_away(
    run: Run, asked: list[scenario.Options], dry: tuple[str, ...], cpus: str, others: str
) -> None:
    done = run("demo", "--cpus", cpus, *dry)
    assert (done.code, done.out, asked) == (2, "", [])
    assert done.err == (
        f"multiroot: the new root can't have CPU {others} (of this lab machine it can have 1-3)\n"
    )


GENERATION = Generation(
    number=1,
    seconds=41.25,
    steps={"launch": 3.5},
    inventory=Inventory(2, "6.1.0", "0-3", (0, 1, 2, 3), 3 * GIB, 5, 40, 1, ("vm1",)),
    guest=GUEST,
    resets=0,
    wall_off=0.002,
    drift=0.001,
)


CARD = CardSeen(Frames(1, 900, 900, 0, 0, 0), sent=850, resets=0, faults=0, driver_lines=0, interrupts=70)


class Lab:
    """Notes whether it was ended."""

    down_called = 0

    def down(self) -> None:
        self.down_called += 1


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What generations were asked for; `fail` among it makes the second one fail."""
    seen: dict[str, Any] = {"lab": Lab()}

    def up(options: labs.Options, phases: object) -> Lab:
        seen["options"] = options
        lab: Lab = seen["lab"]
        return lab

    class Generations:
        def __init__(self, machine: Lab, memory: int, phases: object, *, card: bool) -> None:
            seen["memory"] = memory
            seen["card"] = card

        def run(self, turn: list[str], show: Any) -> None:
            seen["turn"] = turn
            show(replace(GENERATION, card=CARD) if seen["card"] else GENERATION)
            if "fail" in seen:
                raise MultirootError("generation 2: the guest lost ticks")

    monkeypatch.setattr(labs, "up", up)
    monkeypatch.setattr(command, "Generations", Generations)
    return seen


def test_generations(run: Run, played: dict[str, Any], tmp_path: Path) -> None:
    words = ("--n", 3, "--kernels", "6.12, 6.1", "--vm-memory", "512M", "--json", tmp_path / "seen")
    done = run("lab", "generations", *words)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("3 generations: the VM lived through all of them, and nothing was lost\n")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["1", "2", "6.1.0", "0-3", "3072", "MiB"] in [row[:6] for row in rows]
    assert ["launch", "3.500"] in rows
    assert played["turn"] == ["6.1", "6.12", "6.1"]
    assert (played["options"].kernel, played["memory"]) == ("6.12", 512 * MIB)
    assert json.loads((tmp_path / "seen").read_text())[0]["inventory"]["kernel"] == "6.1.0"
    assert played["lab"].down_called == 1


def test_generations_with_a_card(run: Run, played: dict[str, Any]) -> None:
    done = run("lab", "generations", "--n", 2, "--passthrough")
    assert (done.code, done.err) == (0, "")
    assert ["900", "900", "0", "0", "0", "0", "70"] in [line.split() for line in done.out.splitlines()]
    assert played["turn"] == ["6.12-full", "6.12-full"]
    assert (played["options"].machine, played["options"].kernel) == ("passthrough", "6.12-full")


@pytest.mark.parametrize(("words", "ended"), [((), 1), (("--keep",), 0)])
def test_generations_that_fail(run: Run, played: dict[str, Any], words: tuple[str, ...], ended: int) -> None:
    played["fail"] = True
    done = run("lab", "generations", *words)
    assert (done.code, done.err) == (1, "multiroot: generation 2: the guest lost ticks\n")
    assert "6.1.0" in done.out
    assert played["lab"].down_called == ended


def test_generations_need_kernels(run: Run, played: dict[str, Any]) -> None:
    done = run("lab", "generations", "--kernels", " ,")
    assert (done.code, done.out) == (2, "")
    assert done.err == "multiroot: no kernels (say --kernels 6.12,6.1)\n"
    assert "options" not in played


def test_a_demo_as_test_points(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scenario, "run", lambda options, phases: replace(GOOD, resets=1))
    done = run("demo", "--ktap", "--junit", tmp_path / "junit.xml")
    lines = done.out.splitlines()
    assert done.code == 1
    assert lines[:3] == [
        "KTAP version 1",
        f"1..{len(GOOD.checks())}",
        "not ok 1 the machine was never reset # 1 resets",
    ]
    assert sum(line.startswith("ok ") for line in lines) == len(GOOD.checks()) - 1
    suite = tree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.attrib["name"], suite.attrib["failures"]) == ("multiroot demo", "1")


@pytest.mark.usefixtures("asked")
def test_two_kinds_of_data_do_not_go_to_one_place(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--ktap", "--json", "-")
    assert (done.code, done.out) == (2, "")
    assert "cannot both go to stdout" in done.err
    done = run("demo", "--junit", tmp_path / "none" / "x")
    assert (done.code, "there is no folder" in done.err) == (2, True)


@pytest.mark.usefixtures("asked")
def test_generations_as_test_points(run: Run, played: dict[str, Any]) -> None:
    done = run("lab", "generations", "--n", 1, "--ktap")
    assert done.out.splitlines()[1:] == [
        "1..1",
        f"ok 1 generation 1 lost nothing # 6.1.0, {GUEST.ticks_after} ticks, 41.2 s",
        "# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0",
    ]
    played["fail"] = True
    done = run("lab", "generations", "--n", 4, "--ktap")
    assert done.code == 1
    assert [line.partition(" #")[0] for line in done.out.splitlines()[1:-1]] == [
        "1..4",
        "ok 1 generation 1 lost nothing",
        "not ok 2 generation 2 comes up",
        "ok 3 generation 3",
        "ok 4 generation 4",
    ]
