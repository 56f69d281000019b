# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever an agent answers, a command ends as docs/cli.md says, and does nothing to the terminal."""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import click
import grpc
import pytest
from cli.conftest import Done, Run
from cli.hostile_agent import METHODS, PHASE, RESULTS, Answers, HostileAgent, Refusal, answers_of
from hypothesis import HealthCheck, Phase, example, given, settings
from kexec.x86.bzimage import BzImage

from multiroot import proc
from multiroot.cli import reference, watch
from multiroot.cli.program import cli
from multiroot.doctor.root import RootDoctor
from multiroot.net import namespace
from multiroot.rpc import successor
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, root_pb2, vm_pb2, watch_pb2

# Every command that asks an agent, with lines that show all it can print, and the methods that it calls.
ASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "doctor": (("doctor", "doctor --json"), ("GetStatus",)),
    "handoff start": (
        ("handoff vm0", "handoff vm0 --to old --json", "handoff --all --json"),
        ("Handoff",),
    ),
    "handoff prepare": (
        ("handoff prepare vm0", "handoff prepare vm0 --json", "handoff prepare --all --undo --to old"),
        ("PrepareHandoff",),
    ),
    "vm ssh": (("vm ssh vm0 --patience 0",), ("Get",)),
    "vm forward": (("vm forward vm0 80", "vm forward vm0 --json"), ("Get",)),
    "handoff cancel": (("handoff cancel vm0", "handoff cancel --json"), ("CancelHandoff",)),
    "root list": (("root list", "root list --json"), ("GetStatus",)),
    "root show": (("root show", "root show new --json"), ("GetStatus",)),
    "root launch": (
        (
            "root launch --kernel 6.12",
            "root launch --kernel 6.12 --json",
            "root launch --kernel 6.12 --dry-run",
            "root launch --kernel 6.12 --dry-run --json",
        ),
        ("Launch", "Plan"),
    ),
    "root dump": (("root dump new --dry-run", "root dump new --with-free -n --json"), ("Describe", "Read")),
    "root backtrace": (("root backtrace new", "root backtrace new --json"), ("Describe", "Read")),
    "root drgn": (("root drgn new -e pass",), ("Describe", "Read")),
    "root release": (("root release", "root release --json"), ("Release",)),
    "root adopt": (("root adopt",), ("TakeOver",)),
    "update": (
        (
            "update --kernel 6.12",
            "update --kernel 6.12 --json",
            "update --kernel 6.12 --dry-run",
            "update --kernel 6.12 --dry-run --json",
        ),
        ("GetState", "Update", "Plan"),
    ),
    "update abort": (("update abort", "update abort --json"), ("AbortUpdate",)),
    "update resume": (("update resume", "update resume --json"), ("GetState", "Resume")),
    "update show": (("update show", "update show --json"), ("GetState",)),
    "vm run": (
        ("vm run vm0", "vm run vm0 --json", "vm run vm0 --kernel vmlinuz"),
        ("FindFile", "KeepFile", "Run"),
    ),
    "vm list": (("vm list", "vm list --json"), ("List",)),
    "vm show": (("vm show vm0", "vm show vm0 --json"), ("Get",)),
    "vm console": (("vm console vm0 --history", "vm console vm0 --no-follow"), ("Console",)),
    "vm define": (("vm define vm0", "vm define vm0 --json"), ("Define",)),
    "vm start": (("vm start vm0", "vm start vm0 --json"), ("Start",)),
    "vm stop": (("vm stop vm0", "vm stop vm0 --force"), ("Stop",)),
    "vm reboot": (("vm reboot vm0",), ("Reboot",)),
    "vm pause": (("vm pause vm0",), ("Pause",)),
    "vm resume": (("vm resume vm0",), ("Get", "Unpause")),
    "vm edit": (("vm edit vm0 --cpus 2", "vm edit vm0 --cpus 2 --json"), ("Get", "Edit")),
    "vm rm": (("vm rm vm0", "vm rm vm0 --force"), ("Remove",)),
    "vm reset": (("vm reset vm0",), ("Reset",)),
    "vm forget": (("vm forget vm0",), ("Forget",)),
    "watch": (("watch --once", "watch --once --json"), ("Watch",)),
}
# And those that ask none, or only one in a lab machine that they have started or found.
ASKS_NONE = {
    *("arena format", "arena show", "completion", "disk list"),
    *("kexec load", "kexec start", "kexec status", "kexec stop"),
    *("plan inventory", "plan show"),
    *("vm image build", "vm image seed", "vm image import", "vm image list", "vm image path", "vm image rm"),
}
IN_A_LAB = ("lab", "demo", "bench", "audit", "try", "kernel")
# Only programs of the lab call these.
NOT_FOR_COMMANDS = {"GetTicks", "SetClock"}

LINES = [line for lines, _ in ASKS.values() for line in lines]
METHODS_OF = {line: methods for lines, methods in ASKS.values() for line in lines}
# docs/cli.md, without those of a signal and of a bug.
CODES = {
    int(code)
    for row in reference.FILE.read_text().splitlines()
    if row.startswith("| ") and (code := row.split("|")[1].strip()).isdecimal()
} - {70}


# What was found, and which lines show it. Every line is given every one.
BELL = "\x07\nmultiroot: x"


def told(*events: coordinator_pb2.Progress) -> Answers:
    """That a call which streams its progress says this."""
    return Answers(dict.fromkeys(RESULTS, events))


def planned(text: str) -> Answers:
    return Answers({"Plan": (coordinator_pb2.PlanResponse(plan_json=text),)})


# An exit code that docs/cli.md did not have.
STRANGER = Answers(
    dict.fromkeys(
        METHODS,
        (
            Refusal(
                grpc.StatusCode.UNAUTHENTICATED, record=b'{"kind":"StrangerError","message":"","hint":""}'
            ),
        ),
    )
)
# root list --json: NaN is no JSON.
NOT_A_NUMBER = Answers({"GetStatus": (root_pb2.RootStatus(uptime_s=math.nan),)})
# root launch: the last words of a kernel went to the terminal as they were.
FAILED_WORDS = told(
    coordinator_pb2.Progress(said="\x1b]0;x\x07"), coordinator_pb2.Progress(phase=common_pb2.Phase(name="x"))
)
# update: a name of two lines.
FORGED_LINE = told(coordinator_pb2.Progress(phase=common_pb2.Phase(name="x\nmultiroot: y")))
# root adopt, update, handoff, handoff cancel, root launch, root release, vm run
ESCAPES = Answers(
    {
        "TakeOver": (coordinator_pb2.CoordinatorState(taking_over=BELL),),
        "Handoff": (coordinator_pb2.Progress(handed_off=coordinator_pb2.HandoffResult(name=BELL)),),
        "PrepareHandoff": (
            coordinator_pb2.Progress(prepared=coordinator_pb2.PrepareHandoffResult(names=[BELL])),
        ),
        "CancelHandoff": (coordinator_pb2.CancelHandoffResponse(stay=[BELL]),),
        "Launch": (coordinator_pb2.Progress(launched=coordinator_pb2.LaunchResult(address=BELL)),),
        "Release": (coordinator_pb2.Progress(released=coordinator_pb2.ReleaseResult(lost=[BELL])),),
        "AbortUpdate": (coordinator_pb2.Progress(released=coordinator_pb2.ReleaseResult(cpus=BELL)),),
        "Update": (coordinator_pb2.Progress(updated=coordinator_pb2.UpdateResult(state=BELL)),),
        "Resume": (coordinator_pb2.Progress(updated=coordinator_pb2.UpdateResult(state=BELL)),),
        **dict.fromkeys(
            ("Run", "Start", "Define", "Edit"), (vm_pb2.Vm(definition=vm_pb2.VmDefinition(name=BELL)),)
        ),
    }
)
# watch --once: what JSON can carry.
DOCUMENT = {
    "roots": {
        "1": {"number": 1, "state": "alive", "kernel_release": BELL, "console": [BELL], "splats": [BELL]}
    },
    "vms": {BELL: {"state": BELL, "owner": 1, "error": BELL}},
    "memory": {BELL: {"size": 1 << 63}, "x": {"size": 1 << 63, "start": 1}},
    "update": {"order": [BELL], "steps": {BELL: {"edge": BELL}}, "error": BELL, "next": BELL},
}
FACTS = Answers(
    {
        "Watch": (
            watch_pb2.WatchEvent(root=1, at_ns=1 << 62, state=json.dumps(DOCUMENT)),
            watch_pb2.WatchEvent(root=1, at_ns=-1, patch='{"roots": {"2": {"number": 2, "state": "ended"}}}'),
            watch_pb2.WatchEvent(root=1, patch='{"cpus": {"-1": {}}}'),
        )
    }
)
# root launch --dry-run --json
NO_PLAN = planned("{")
PLAN_WITHOUT_A_NUMBER = planned('{"a": NaN, "b": 1e999}')
# No finding: json reads it, and nobody can walk through it.
DEEP_PLAN = planned('{"a": ' + "[" * 900 + "]" * 900 + "}")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileAgent]:
    """Where a root's own agent would be, below a folder."""
    folder = tmp_path_factory.mktemp("root")
    socket = folder / "run/multiroot/agent.sock"
    socket.parent.mkdir(parents=True)
    fake = HostileAgent()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[fake])
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIROOT_AGENT", f"unix:{socket}")
        # A doctor's other checks look at this computer.
        patch.setattr(RootDoctor, "checks", lambda _: [("agent", RootDoctor(folder)._agent)])
        patch.setattr(successor, "wait", functools.partial(successor.wait, timeout_s=0.02))
        patch.setattr(successor, "POLL_S", 0.01)
        patch.setattr(watch, "HEARD_S", 0.05)
        yield fake
    server.stop(None).wait()


@pytest.fixture(autouse=True)
def bugs_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that bugs are written to. No command goes on as another program here. Where they run, there
    is a kernel.
    """
    (tmp_path / "vmlinuz").write_bytes(BzImage().build())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proc, "become", lambda _argv: None)
    monkeypatch.setattr(proc, "find", lambda program: program)
    monkeypatch.setattr(namespace, "connect", greeted)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "multiroot" / "bugs"


def test_every_command_is_here() -> None:
    """A new one belongs into ASKS, with lines to try, unless it asks no agent."""
    there = {
        " ".join(path[1:])
        for path, command in reference.walk(cli, ("multiroot",))
        if not isinstance(command, click.Group) or command.invoke_without_command
    }
    outside = {name for name in there if name.split()[0] not in IN_A_LAB}
    assert outside == ASKS.keys() | ASKS_NONE
    assert not ASKS.keys() & ASKS_NONE


def test_every_method_is_here() -> None:
    asked = {method for _, methods in ASKS.values() for method in methods}
    assert asked == METHODS.keys() - NOT_FOR_COMMANDS


def greeted(*_: object) -> socket.socket:
    """A connection to an SSH server."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"SSH-2.0-OpenSSH")
    return ours


@pytest.mark.parametrize("line", LINES)
def test_any_answer_is_shown_or_refused(
    line: str, run: Run, agent: HostileAgent, bugs_found: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a command, nobody takes what libraries log; Python prints it then, unless a library sees to it.
    monkeypatch.setattr(logging.root, "handlers", [])

    # To make a failing answer small takes minutes: an update waits, and a command loads much.
    @settings(
        max_examples=15,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(answers_of(METHODS_OF[line]))
    @example(STRANGER)
    @example(NOT_A_NUMBER)
    @example(FAILED_WORDS)
    @example(FORGED_LINE)
    @example(ESCAPES)
    @example(NO_PLAN)
    @example(PLAN_WITHOUT_A_NUMBER)
    @example(DEEP_PLAN)
    @example(FACTS)
    def check(answers: Answers) -> None:
        agent.says(answers)
        with guest_output() if line.startswith("vm console") else nullcontext():
            done = run(*line.split())
        judge(line, done)
        assert agent.calls
        assert {name for name, _, _ in agent.calls} <= set(METHODS_OF[line])
        assert not bugs_found.exists()

    check()


def guest_output() -> redirect_stdout[io.TextIOWrapper]:
    """Takes what a guest writes to its console. It passes as it is, for that is what a console is for."""
    return redirect_stdout(io.TextIOWrapper(io.BytesIO()))


def judge(line: str, done: Done) -> None:
    assert done.code in CODES, done.err
    assert "Traceback" not in done.err
    printed = done.out + done.err
    assert printed.replace("\n", "").isprintable()
    assert sum(text.startswith("multiroot: ") for text in printed.split("\n")) <= 1
    if "--json" in line and done.out:
        json.loads(done.out, parse_constant=refuse)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize(
    "line",
    # Of all VMs there may be none.
    [
        line
        for line in LINES
        if not {"--dry-run", "--all"} & {*line.split()} and METHODS_OF[line][-1] in RESULTS
    ]
    + ["root launch --kernel 6.12", "root launch --kernel 6.12 --json", "update --kernel 6.12"],
)
@pytest.mark.parametrize(
    "events",
    [(), (coordinator_pb2.Progress(),), (coordinator_pb2.Progress(phase=PHASE), coordinator_pb2.Progress())],
)
def test_what_ends_without_its_result_has_not_worked(
    line: str, events: tuple[coordinator_pb2.Progress, ...], run: Run, agent: HostileAgent
) -> None:
    """Nor with the result of another call, which has no root or VM to name."""
    other = RESULTS["Handoff" if "handoff" not in line else "Launch"]
    for answer in (events, (*events, other)):
        agent.says(Answers(dict.fromkeys(RESULTS, answer)))
        done = run(*line.split())
        assert done.code == 1
        assert "without a result" in done.err


@pytest.mark.parametrize("number", [0, 1000, (1 << 32) - 1])
def test_a_peer_that_cannot_be_is_no_fault_of_the_request(run: Run, agent: HostileAgent, number: int) -> None:
    peers = [root_pb2.PeerStatus(root=number, state="ready")]
    agent.says(Answers({"GetStatus": (root_pb2.RootStatus(root=1, peers=peers),)}))
    done = run("root", "list")
    assert (done.code, done.out) == (1, "")
    assert f"a root {number}, and there can be none" in done.err


def test_a_peer_that_is_told_of_often_is_asked_once(run: Run, agent: HostileAgent) -> None:
    peers = [root_pb2.PeerStatus(root=2, state="ready")] * 50
    agent.says(Answers({"GetStatus": (root_pb2.RootStatus(root=1, peers=peers),)}))
    assert run("root", "list").code == 0
    assert len(agent.calls) == 2


def test_a_console_that_the_agent_gives_up_has_not_ended_well(run: Run, agent: HostileAgent) -> None:
    agent.says(Answers({"Console": (Refusal(grpc.StatusCode.CANCELLED, "gone"),)}))
    done = run("vm", "console", "vm0")
    assert (done.code, done.err) == (1, "multiroot: the agent failed: gone\n")
