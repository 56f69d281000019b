# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot kexec` from load to stop, with a device that keeps the module's rules in memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli.conftest import Run
from kexec.x86.bzimage import BzImage
from launch.fakes import FakeDevice
from plan.strategies import machine

from multiroot.cli import kexec
from multiroot.device.uapi import CpuState, lib
from multiroot.launch import carve, kernels, record, session
from multiroot.launch.carve import Taken


class Device(FakeDevice):
    """Opened once by each command, with its state kept."""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def control(self, peer: object) -> Any:
        """What a started root says of itself."""
        return SimpleNamespace(theirs=SimpleNamespace(state=lib.MULTIROOT_SIDE_READY))


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device of a root with four CPUs, of which two can be given away."""
    made = Device()
    monkeypatch.setattr(kexec, "open_device", lambda required: made)
    monkeypatch.setattr(session, "take_inventory", lambda device, facts: machine())
    monkeypatch.setattr(session, "this_boot", lambda: "boot")
    monkeypatch.setattr(carve, "take", lambda plan: Taken(tuple(c.number for c in plan.cpus), plan.blocks))
    for name in ("give_back", "online_cpus", "online_blocks"):
        monkeypatch.setattr(carve, name, lambda what: None)
    path = tmp_path / "loaded.json"
    monkeypatch.setattr(record.find, "__defaults__", (path, "boot"))
    monkeypatch.setattr(kernels.example, "__defaults__", (tmp_path / "kernels",))
    for function in (record.save, record.remove):
        monkeypatch.setattr(function, "__defaults__", (path,))
    return made


@pytest.fixture
def load(run: Run, tmp_path: Path) -> tuple[Any, ...]:
    """The words that load a kernel."""
    (tmp_path / "vmlinuz").write_bytes(BzImage().build())
    (tmp_path / "initrd").write_bytes(b"070701")
    return ("kexec", "load", tmp_path / "vmlinuz", "--initrd", tmp_path / "initrd")


def test_from_load_to_stop(run: Run, device: Device, load: tuple[Any, ...]) -> None:
    done = run(*load, "--append", "quiet")
    assert done.code == 0
    assert done.out.startswith("loaded ")
    assert done.out.endswith(" as root 2; `multiroot kexec start` starts it\n")
    done = run("kexec", "status")
    assert done.code == 0
    assert ["state", "loaded"] in [line.split() for line in done.out.splitlines()]
    done = run("kexec", "start", "--timeout", 2)
    assert done.code == 0
    assert done.out.startswith("root 2 (")
    assert " was entered after " in done.out
    data = json.loads(run("kexec", "status", "--json").out)
    assert (data["state"], data["loaded"]["start_tsc"]) == ("ready", 1000)
    done = run("kexec", "stop")
    assert (done.code, done.out) == (0, "stopped root 2; CPU 2-3 online again\n")
    assert not device.carved
    assert [device.cpus[number] for number in (2, 3)] == [CpuState.OFFLINE] * 2
    assert run("kexec", "status").out == "no kernel is loaded\n"


def test_from_load_to_stop_as_data(run: Run, device: Device, load: tuple[Any, ...]) -> None:
    data = json.loads(run(*load, "--json", "--cpus", "3").out)
    assert (data["root"], data["taken"]["cpus"]) == (2, [3])
    assert json.loads(run("kexec", "start", "--json").out)["root"] == 2
    assert json.loads(run("kexec", "stop", "--json").out) == {
        "root": 2,
        "cpus": [3],
        "blocks": [],
        "lost": [],
    }


def test_dry_run_changes_nothing(run: Run, device: Device, load: tuple[Any, ...]) -> None:
    done = run(*load, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert "command line: " in done.out
    assert not device.claimed
    assert run("kexec", "status").code == 1


def test_nothing_is_loaded(run: Run, device: Device) -> None:
    done = run("kexec", "status", "--json")
    assert (done.code, json.loads(done.out)) == (1, {"state": "none", "loaded": None})
    for command in ("start", "stop"):
        done = run("kexec", command)
        assert (done.code, done.out) == (3, "")
        assert done.err == "multiroot: no kernel is loaded (load one: `multiroot kexec load FILE`)\n"


def test_a_root_that_the_agent_started_is_not_denied(run: Run, device: Device, tmp_path: Path) -> None:
    (tmp_path / "kernels/6.12").mkdir(parents=True)
    (tmp_path / "kernels/6.12/vmlinuz").touch()
    assert run("kexec", "stop").err.endswith("(load one: `multiroot kexec load 6.12`)\n")
    device.carved = (1, 1, 1, 1, 1)
    done = run("kexec", "status")
    assert (done.code, done.out) == (0, "the new root is the agent's; `multiroot root list` shows it\n")
    assert json.loads(run("kexec", "status", "--json").out) == {"state": "agent", "loaded": None}
    for command in ("start", "stop"):
        done = run("kexec", command)
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith("multiroot: the new root is the agent's (`multiroot root list` shows it, ")


def test_a_load_that_is_refused_leaves_nothing(run: Run, device: Device, load: tuple[Any, ...]) -> None:
    device.fail = "carve"
    done = run(*load)
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[-1] == "multiroot: carve refused"
    assert run("kexec", "status").code == 1
    done = run(*load, "--cpus", "2", "--cpu-count", "1")
    said = "multiroot: --cpus and --cpu-count exclude each other (`multiroot kexec load --help`)\n"
    assert (done.code, done.err) == (2, said)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e308", "4000", "x", ""])
def test_a_time_that_is_none_is_refused(run: Run, device: Device, seconds: str) -> None:
    done = run("kexec", "start", "--timeout", seconds)
    assert done.code == 2
    assert "--timeout" in done.err.splitlines()[-1]
