# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot root`: what is asked of which root, and how the answers are shown."""

from __future__ import annotations

import json

import pytest
from cli.conftest import PLAN, FakeAgent, Run

from multiroot.errors import BadRequestError, ConflictError, PeerLostError
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, root_pb2
from multiroot.units import GIB, MIB


def status(number: int, **more: object) -> root_pb2.RootStatus:
    return root_pb2.RootStatus(
        root=number,
        kernel_release=f"6.{number}.0",
        boot_id=f"boot-{number}",
        uptime_s=12.25,
        devices=["0000:00:02.0"],
        memory=[common_pb2.MemoryRange(start=MIB, size=512 * MIB, name="System RAM")],
        **more,  # type: ignore[arg-type]
    )


OLD = status(
    1,
    vms=["vm0"],
    marks=[root_pb2.Mark(name="kernel", at_ns=10**9), root_pb2.Mark(name="agent", at_ns=3 * 10**9)],
    peers=[
        root_pb2.PeerStatus(
            role=root_pb2.PeerStatus.ROLE_CHILD, root=2, state="ready", address="10.77.0.2:7700"
        )
    ],
)


@pytest.fixture
def roots(agent: FakeAgent) -> FakeAgent:
    """Two roots."""
    agent.answer("GetStatus", OLD)
    agent.answer("GetStatus", OLD, root="old")
    agent.answer("GetStatus", status(2), root="2")
    return agent


def test_list(run: Run, roots: FakeAgent) -> None:
    done = run("root", "list")
    assert (done.code, done.err) == (0, "")
    heading, _, first, second = (line.split() for line in done.out.splitlines() if line.strip())
    assert heading[0] == "root"
    assert first[:2] == ["1", "6.1.0"]
    assert first[-7:] == ["512", "MiB", "1", "vm0", "12.2", "s", "boot-1"]
    assert second[:2] == ["2", "6.2.0"]
    data = json.loads(run("root", "list", "--json").out)
    assert [root["root"] for root in data] == [1, 2]
    assert data[0]["peers"][0]["role"] == "child"


def test_a_root_that_does_not_answer_is_not_asked(run: Run, agent: FakeAgent) -> None:
    lost = root_pb2.PeerStatus(role=root_pb2.PeerStatus.ROLE_PARENT, root=1, state="lost")
    agent.answer("GetStatus", status(2, peers=[lost]))
    assert [root["root"] for root in json.loads(run("root", "list", "--json").out)] == [2]


def test_show(run: Run, roots: FakeAgent) -> None:
    done = run("root", "show")
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    for line in ("kernel_release 6.1.0", "PCI 0000:00:02.0", "0x100000 512 MiB System RAM", "agent 2.000"):
        assert line in lines
    assert "child 2 ready 10.77.0.2:7700" in lines
    assert json.loads(run("root", "show", "2", "--json").out)["boot_id"] == "boot-2"
    assert [root for _, root, _ in roots.calls] == ["old", "2"]


def test_show_refuses(run: Run, agent: FakeAgent) -> None:
    agent.answer("GetStatus", PeerLostError("root 3 does not answer", "see its console"), root="3")
    done = run("root", "show", "3")
    assert (done.code, done.out) == (5, "")
    assert done.err == "multiroot: root 3 does not answer (see its console)\n"
    done = run("root", "show", "third")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("multiroot: not a root")


LAUNCHED = coordinator_pb2.LaunchResult(
    root=2, address="10.77.0.2:7700", start_ns=10**9, attached_ns=2 * 10**9, ready_ns=35 * 10**8
)
LOAD = common_pb2.Phase(name="load", side="old root", start_ns=5, duration_ns=2_500_000_000, ok=True)


def test_launch(run: Run, agent: FakeAgent) -> None:
    agent.answer(
        "Launch",
        coordinator_pb2.Progress(phase=LOAD),
        coordinator_pb2.Progress(launched=LAUNCHED),
        root="old",
    )
    words = ("root", "launch", "--kernel", "6.12", "--cpus", "2-3", "--carve", "1G@0x140000000")
    done = run(*words, "--append", "quiet", "--timeout", 30)
    assert done.code == 0
    assert done.out == "root 2 joined 2.50 s after its CPU was started; agent at 10.77.0.2:7700\n"
    assert done.err.split() == ["done", "2.500", "s", "old", "root:", "load"]
    assert agent.requests("Launch") == [
        coordinator_pb2.LaunchRequest(
            kernel="6.12", cpus="2-3", carve_size=GIB, carve_base=5 * GIB, append="quiet", join_timeout_s=30
        )
    ]
    assert run("root", "launch", "--kernel", "6.12", "--keep").code == 0
    assert agent.requests("Launch")[-1].keep
    data = json.loads(run(*words, "--json").out)
    assert data == {"root": 2, "address": "10.77.0.2:7700", "start_ns": 10**9}


def test_launch_dry_run(run: Run, agent: FakeAgent) -> None:
    agent.answer("Plan", coordinator_pb2.PlanResponse(plan_json=PLAN.to_json()), root="old")
    done = run("root", "launch", "--kernel", "6.12", "--dry-run", "--json")
    assert (done.code, json.loads(done.out)) == (0, json.loads(PLAN.to_json()))
    shown = run("root", "launch", "--kernel", "6.12", "--dry-run").out
    assert "2-3" in shown
    assert "(512 MiB)" in shown
    assert [name for name, _, _ in agent.calls] == ["Plan", "Plan"]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (
            ("--kernel", "6.12", "--carve", "010M"),
            2,
            "not a size: '010M' (write it without the leading zero)",
        ),
        (("--kernel", "6.12"), 3, "a new root runs already (release it)"),
    ],
)
def test_launch_refuses(run: Run, agent: FakeAgent, words: tuple[str, ...], code: int, line: str) -> None:
    agent.answer("Launch", ConflictError("a new root runs already", "release it"), root="old")
    done = run("root", "launch", *words)
    assert (done.code, done.out, done.err) == (code, "", f"multiroot: {line}\n")


def test_a_call_without_a_result(run: Run, agent: FakeAgent) -> None:
    agent.answer("Launch", root="old")
    done = run("root", "launch", "--kernel", "6.12")
    assert (done.code, done.out) == (1, "")
    assert done.err == "multiroot: the agent ended the call without a result (see its log)\n"


def test_release(run: Run, agent: FakeAgent) -> None:
    result = coordinator_pb2.ReleaseResult(cpus="2-3", memory_bytes=GIB)
    agent.answer("Release", coordinator_pb2.Progress(released=result), root="old")
    assert run("root", "release").out == "released: CPUs 2-3, 1 GiB of memory\n"
    data = json.loads(run("root", "release", "--force", "--json").out)
    assert data == {"cpus": "2-3", "memory_bytes": GIB, "lost": [], "idle": False}
    assert [request.force for request in agent.requests("Release")] == [False, True]
    result = coordinator_pb2.ReleaseResult(cpus="2-3", memory_bytes=GIB, lost=["web"])
    agent.answer("Release", coordinator_pb2.Progress(released=result), root="old")
    assert run("root", "release", "--force").out.endswith("\nlost: web\n")
    idle = coordinator_pb2.ReleaseResult(idle=True)
    agent.answer("Release", coordinator_pb2.Progress(released=idle), root="old")
    done = run("root", "release")
    assert (done.code, done.out) == (0, "no new root was launched: there is nothing to release\n")
    agent.answer("Release", ConflictError("VMs run there: vm0", "--force"), root="old")
    done = run("root", "release")
    assert (done.code, done.out, done.err) == (3, "", "multiroot: VMs run there: vm0 (--force)\n")


def test_adopt(run: Run, agent: FakeAgent) -> None:
    agent.answer("TakeOver", coordinator_pb2.CoordinatorState(root=2, taking_over="adopting CPUs"))
    done = run("root", "adopt", "--device", "0000:00:02.0", "--device", "0000:00:03.0")
    assert (done.code, done.out, done.err) == (0, "root 2 is adopting CPUs\n", "")
    assert agent.requests("TakeOver")[0].devices == ["0000:00:02.0", "0000:00:03.0"]
    agent.answer("TakeOver", BadRequestError("no function 0000:00:09.0"))
    done = run("root", "adopt", "--device", "0000:00:09.0")
    assert (done.code, done.out, done.err) == (2, "", "multiroot: no function 0000:00:09.0\n")
