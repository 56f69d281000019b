# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab`: what is shown of a lab machine and how its commands end; no machine is started."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import FakeAgent, Run
from lab.machines import default_machine

from multiroot.cli import disk
from multiroot.errors import BadRequestError, PeerLostError
from multiroot.lab import boot, build, execution, vmx
from multiroot.lab import lab as labs
from multiroot.lab.machine import Machine
from multiroot.lab.recorder import console_log
from multiroot.lab.state import Attempt, LabState
from multiroot.rpc.client import Address
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import GIB, MIB


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabState:
    """A lab called "default" that has ended."""
    paths = {"release": "6.12.1-amd64", "vmlinuz": Path("/cache/vmlinuz")}
    machine = replace(default_machine(tmp_path, monkeypatch), **paths)
    found = LabState(machine, "digest", attempts=[Attempt("no answer", 30.0), Attempt("ready", 12.5)])
    found.folder.mkdir(parents=True)
    found.save()
    return found


@pytest.mark.usefixtures("lab")
def test_status(run: Run) -> None:
    done = run("lab", "status")
    assert (done.code, done.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines() if len(line.split()) > 1)
    assert {name: rows[name].strip() for name in ("running", "kernel", "old_cpus", "boots")} == {
        "running": "no",
        "kernel": "6.12.1-amd64",
        "old_cpus": "0-1",
        "boots": "no answer 30.0 s; ready 12.5 s",
    }
    assert not {"pid", "agent", "held"} & set(rows), "they mean nothing any more"
    data = json.loads(run("lab", "status", "--json").out)
    assert data["carve"] == {"start": 0x118000000, "size": GIB}
    assert (data["boot_retries"], data["running"]) == (1, False)


@pytest.mark.parametrize("command", [("status",), ("logs",), ("console",), ("down",), ("exec", "true")])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("none", "no lab called 'none' ('multiroot lab up' starts one)"),
        ("a/b", "not a name for a lab: 'a/b'"),
    ],
)
@pytest.mark.usefixtures("lab")
def test_labs_that_are_not_there(
    run: Run, command: tuple[str, ...], name: str, line: str, null: None
) -> None:
    done = run("lab", command[0], "--name", name, *command[1:])
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(f"multiroot: {line}")


def test_up_dry_run_prints_the_command(run: Run, lab: LabState, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[labs.Options] = []

    def prepare(options: labs.Options, phases: object) -> tuple[Machine, None]:
        seen.append(options)
        return lab.machine, None

    monkeypatch.setattr(labs, "prepare", prepare)
    words = ("--kernel", "6.1", "--vms", 2, "--vm-memory", "512M", "--carve", "2G", "--cpus", 6)
    done = run("lab", "up", "--dry-run", *words)
    assert (done.code, done.err) == (0, "")
    argv = shlex.split(done.out)
    assert argv[argv.index("-kernel") + 1] == "/cache/vmlinuz"
    assert seen == [labs.Options(kernel="6.1", vms=2, vm_memory=512 * MIB, carve=2 * GIB, cpus=6)]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--carve", "lots"), 2, "multiroot: not a size: 'lots' (write it like 256M or 1G)"),
        (("--vm-memory", "3"), 2, "multiroot: 3 B of memory is too little (at least 32 MiB)"),
        (("--kernel", "5.4"), 2, "multiroot: no kernel called '5.4'"),
        (("--cpus", "1"), 2, "multiroot: --cpus: 1 is no number from 2 to 64"),
    ],
)
def test_up_refuses(run: Run, lab: LabState, words: tuple[str, ...], code: int, line: str) -> None:
    done = run("lab", "up", "--dry-run", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.splitlines()[-1].startswith(line)


def test_logs_have_seconds(run: Run, lab: LabState) -> None:
    text = b"1500000000 one\t\xff\r two\x1b[2J\n12000000000 end\nunfinished"
    (lab.folder / console_log("new")).write_bytes(text)
    done = run("lab", "logs", "--root", "new")
    assert (done.code, done.err) == (0, "")
    assert done.out == "    1.500000 one     \ufffd\\r two\\x1b[2J\n   12.000000 end\n"


def test_down(run: Run, lab: LabState, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("lab", "down").out == "lab default was not running\n"
    monkeypatch.setattr(boot, "down", lambda found: found.machine.name == "default")
    assert run("lab", "down").out == "lab default ended\n"


def test_down_says_how_many_vms_ended_with_it(
    run: Run, agent: FakeAgent, lab: LabState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabState, "alive", lambda self: True)
    monkeypatch.setattr(LabState, "agent_address", Address(f"unix:{tmp_path}/agent"))
    monkeypatch.setattr(boot, "down", lambda found: True)
    states = {"web": "running", "db": "paused", "old": "stopped", "multiroot-canary": "running"}
    vms = [vm_pb2.Vm(definition=vm_pb2.VmDefinition(name=name), state=each) for name, each in states.items()]
    agent.answer("List", vm_pb2.ListVmsResponse(vms=vms))
    assert run("lab", "down").out == "lab default ended, and 2 VMs with it\n"
    agent.answer("List", PeerLostError("nobody knows"))
    assert run("lab", "down").out == "lab default ended\n"


def test_down_without_any_lab_is_no_mistake(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    done = run("lab", "down")
    assert (done.code, done.out, done.err) == (0, "lab default was not running\n", "")
    assert run("lab", "down", "--name", "default").code == 2


@pytest.fixture
def null(monkeypatch: pytest.MonkeyPatch) -> Any:
    """stdin is /dev/null."""
    with Path("/dev/null").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        yield


class Channel:
    """To a root whose programs say their words and exit with 3."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_exec_passes_everything_through(
    run: Run, lab: LabState, monkeypatch: pytest.MonkeyPatch, null: None
) -> None:
    made: list[Channel] = []

    class Attached:
        state = lab

        def channel(self, root: str) -> Channel:
            made.append(Channel(root))
            return made[0]

    def execute(channel: Channel, argv: tuple[str, ...], *, stdin: int, stdout: Any, stderr: Any) -> int:
        assert not channel.closed
        stdout(f"{channel.root}: {argv}\n".encode())
        stderr(b"warned\n")
        return 3

    monkeypatch.setattr(labs, "attach", lambda name: Attached())
    monkeypatch.setattr(execution, "execute", execute)
    done = run("lab", "exec", "--root", "2", "ls", "-l", "--name", "x")
    assert done.code == 3
    assert "ls', '-l'" in done.out
    assert done.out.startswith("2: ")
    assert done.err == "warned\n"
    assert made[0].closed


def test_build(run: Run, lab: LabState, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        name, release = "6.12", "6.12.1-amd64"

    class Built:
        image, image_digest = Path("/cache/image"), "digest"
        kernels = {"6.12": Kernel}  # noqa: RUF012

    forgotten: list[object] = []
    monkeypatch.setattr(labs, "cache", lambda phases: "cache")
    prepared: list[object] = []
    for module in (build, vmx):
        monkeypatch.setattr(module, "forget_roots", forgotten.append)
    monkeypatch.setattr(build, "build", lambda cache: Built)
    monkeypatch.setattr(vmx, "prepare", lambda *cache, **whole: prepared.append((*cache, whole)))
    assert run("lab", "build").out.split()[-2:] == ["6.12", "6.12.1-amd64"]
    assert forgotten == []
    assert json.loads(run("lab", "build", "--refresh", "--json").out) == {
        "image": "/cache/image",
        "digest": "digest",
        "kernels": {"6.12": "6.12.1-amd64"},
    }
    assert forgotten == ["cache", "cache"]
    assert prepared == []
    run("lab", "build", "--vmx")
    assert prepared == [("cache", {})]
    run("lab", "build", "--vmx-whole")
    assert prepared == [("cache", {})] * 2 + [("cache", {"whole": True})]

    def broken(cache: object) -> None:
        raise BadRequestError("roots.toml: no suite")

    monkeypatch.setattr(build, "build", broken)
    done = run("lab", "build")
    assert (done.code, done.out, done.err) == (2, "", "multiroot: roots.toml: no suite\n")


def test_accel_is_asked_for_by_name(run: Run, lab: LabState) -> None:
    done = run("lab", "up", "--accel", "xen")
    assert (done.code, done.out) == (2, "")
    assert "'xen' is none of" in done.err


def test_a_workstation_without_a_lab_has_no_disks_for_vms(run: Run) -> None:
    done = run("disk", "list")
    assert (done.code, done.out) == (2, "")
    assert "(start a lab: multiroot lab up --disk FILE)" in done.err


def test_a_workstation_lists_the_disks_of_its_lab(
    run: Run, lab: LabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints name this command, and are read here as well as in a root."""
    asked: list[tuple[str, ...]] = []

    def in_root(self: labs.Lab, argv: Sequence[str]) -> execution.Result:
        asked.append((self.state.machine.name, *argv))
        return execution.Result(3, "pmem:0x1c0000000  1 GiB\n\x1b[2J\n", "multiroot: half of it\n")

    monkeypatch.setattr(disk, "lab_of_agent", lambda: lab)
    monkeypatch.setattr(labs, "attach", lambda name: labs.Lab(lab))
    monkeypatch.setattr(labs.Lab, "run", in_root)
    done = run("disk", "list", "--json")
    assert (done.code, done.err) == (3, "multiroot: half of it\n")
    assert done.out == "pmem:0x1c0000000  1 GiB\n\\x1b[2J\n"
    assert asked == [("default", "multiroot", "disk", "list", "--json")]
