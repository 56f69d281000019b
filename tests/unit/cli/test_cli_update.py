# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot update` and `multiroot handoff`."""

from __future__ import annotations

import json

import pytest
from cli.conftest import PLAN, FakeAgent, Run

from multiroot.errors import ConflictError
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, device_pb2
from multiroot.units import GIB

CARVE = common_pb2.Phase(name="carve", side="old root", start_ns=5, duration_ns=1_500_000, ok=True)
MEMORY = common_pb2.Phase(name="adopt memory", side="new root", start_ns=9, duration_ns=2_000_000, ok=True)


def updated(agent: FakeAgent, *, retiring: bool) -> None:
    """An update that works; if the old root retires, the new one answers next at its address."""
    agent.answer("GetState", coordinator_pb2.CoordinatorState(root=1))
    agent.answer("Plan", coordinator_pb2.PlanResponse(plan_json=PLAN.to_json()))
    result = coordinator_pb2.UpdateResult(
        state="retiring" if retiring else "handed over", root=2, retiring=retiring
    )
    agent.answer("Update", coordinator_pb2.Progress(phase=CARVE), coordinator_pb2.Progress(updated=result))


@pytest.fixture
def new_root_answers(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question for a state goes to the new root."""
    from multiroot.rpc import successor

    wait = successor.wait

    def then(*arguments: object, **named: object) -> coordinator_pb2.CoordinatorState:
        state = coordinator_pb2.CoordinatorState(root=2, taking_over="done", phases=[MEMORY])
        agent.answer("GetState", state)
        return wait(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(successor, "wait", then)


@pytest.mark.usefixtures("new_root_answers")
def test_an_update_is_followed_to_the_new_root(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=True)
    done = run("update", "--kernel", "6.12", "--verify", "--device", "0000:00:02.0", "--carve", "1G")
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines() if "root" in line]
    assert rows == [
        ["old", "root", "carve", "1.5"],
        ["new", "root", "adopt", "memory", "2.0"],
        ["root", "2", "has", "the", "machine,", "all", "of", "it"],
    ]
    assert agent.requests("Update") == [
        coordinator_pb2.UpdateRequest(
            launch=coordinator_pb2.LaunchRequest(kernel="6.12", carve_size=GIB),
            verify=True,
            devices=["0000:00:02.0"],
            terms=USUAL,
        )
    ]


@pytest.mark.usefixtures("new_root_answers")
def test_an_update_as_data(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=True)
    data = json.loads(run("update", "--kernel", "6.12", "--json").out)
    assert (data["root"], data["retired"], data["taking_over"]) == (2, True, "done")
    assert [(phase["name"], phase["ms"]) for phase in data["phases"]] == [
        ("carve", 1.5),
        ("adopt memory", 2.0),
    ]


def test_what_an_agent_notes_of_a_phase_does_not_replace_its_name(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=False)
    phase = common_pb2.Phase(
        name="carve", side="old root", duration_ns=5, attrs={"name": "x", "ms": "y", "a": "b"}
    )
    result = coordinator_pb2.UpdateResult(state="joined")
    agent.answer("Update", coordinator_pb2.Progress(phase=phase), coordinator_pb2.Progress(updated=result))
    (told,) = json.loads(run("update", "--kernel", "6.12", "--json").out)["phases"]
    assert (told["name"], told["ms"], told["a"]) == ("carve", 0.0, "b")


@pytest.mark.parametrize(
    ("words", "until"), [(("--keep-old",), "handover"), (("--until", "join"), "join"), ((), "")]
)
def test_where_an_update_stops(run: Run, agent: FakeAgent, words: tuple[str, ...], until: str) -> None:
    updated(agent, retiring=False)
    done = run("update", "--kernel", "6.12", *words)
    assert done.code == 0
    assert done.out.endswith("the update is handed over\n")
    assert agent.requests("Update")[0].until == until


@pytest.mark.parametrize(
    ("words", "without"), [((), False), (("--canary",), False), (("--no-canary",), True)]
)
def test_an_update_goes_with_a_canary_unless_told_otherwise(
    run: Run, agent: FakeAgent, words: tuple[str, ...], without: bool
) -> None:
    updated(agent, retiring=False)
    assert run("update", "--kernel", "6.12", *words).code == 0
    assert agent.requests("Update")[0].no_canary is without


def test_update_dry_run(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=True)
    done = run("update", "--kernel", "6.12", "--dry-run", "--json")
    assert (done.code, json.loads(done.out)) == (0, json.loads(PLAN.to_json()))
    assert "{" not in run("update", "--kernel", "6.12", "--dry-run").out
    assert [name for name, _, _ in agent.calls] == ["Plan", "Plan"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "say which kernel: --kernel NAME"),
        (("--kernel", "6.12", "--keep-old", "--until", "join"), "--keep-old is --until handover"),
        (("--kernel", "6.12", "--timeout", "-1"), "--timeout: -1 is no number from 0 to 86400"),
    ],
)
def test_an_update_that_makes_no_sense(run: Run, agent: FakeAgent, words: tuple[str, ...], line: str) -> None:
    done = run("update", *words)
    assert (done.code, done.out) == (2, "")
    assert line in done.err.splitlines()[-1]
    assert agent.calls == []


def test_an_update_that_is_refused(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=True)
    agent.answer("Update", ConflictError("an update runs already", "abort it"))
    done = run("update", "--kernel", "6.12")
    assert (done.code, done.out, done.err) == (3, "", "multiroot: an update runs already (abort it)\n")


def test_abort(run: Run, agent: FakeAgent) -> None:
    result = coordinator_pb2.ReleaseResult(memory_bytes=GIB)
    agent.answer("AbortUpdate", coordinator_pb2.Progress(released=result))
    done = run("update", "abort")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("given back in 0.")
    assert done.out.endswith(" s: CPUs none, 1 GiB of memory\n")
    data = json.loads(run("update", "abort", "--json").out)
    assert (data["cpus"], data["memory_bytes"]) == ("", GIB)
    result = coordinator_pb2.ReleaseResult(memory_bytes=GIB, lost=["web", "db"])
    agent.answer("AbortUpdate", coordinator_pb2.Progress(released=result))
    assert run("update", "abort", "--force").out.endswith("of memory\nlost: web, db\n")
    assert [request.force for request in agent.requests("AbortUpdate")] == [False, False, True]
    assert json.loads(run("update", "abort", "--force", "--json").out)["lost"] == ["web", "db"]
    idle = coordinator_pb2.ReleaseResult(idle=True)
    agent.answer("AbortUpdate", coordinator_pb2.Progress(released=idle))
    done = run("update", "abort")
    assert (done.code, done.out) == (0, "no update is under way: there is nothing to abort\n")
    agent.answer("AbortUpdate", ConflictError("the update is committed"))
    done = run("update", "abort")
    assert (done.code, done.out, done.err) == (3, "", "multiroot: the update is committed\n")


def test_resume_goes_on_with_an_update(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=False)
    result = coordinator_pb2.UpdateResult(state="handed-over", root=2)
    agent.answer("Resume", coordinator_pb2.Progress(phase=CARVE), coordinator_pb2.Progress(updated=result))
    done = run("update", "resume", "--until", "handover")
    assert (done.code, done.out.splitlines()[-1]) == (0, "the update is handed-over")
    assert agent.requests("Resume") == [coordinator_pb2.ResumeRequest(until="handover")]
    assert json.loads(run("update", "resume", "--no-canary", "--json").out)["state"] == "handed-over"
    assert [request.no_canary for request in agent.requests("Resume")] == [False, True]
    assert run("update", "resume", "--downtime-limit", "600").code == 0
    assert agent.requests("Resume")[-1] == coordinator_pb2.ResumeRequest(downtime_limit_ms=600)
    agent.answer("Resume", ConflictError("no update is under way", "start one"))
    done = run("update", "resume")
    assert (done.code, done.out, done.err) == (3, "", "multiroot: no update is under way (start one)\n")


@pytest.mark.usefixtures("new_root_answers")
def test_resume_follows_an_update_to_the_new_root(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=True)
    result = coordinator_pb2.UpdateResult(state="committed", root=2, retiring=True)
    agent.answer("Resume", coordinator_pb2.Progress(updated=result))
    done = run("update", "resume")
    assert (done.code, done.out.splitlines()[-1]) == (0, "root 2 has the machine, all of it")


def test_resume_finishes_taking_an_update_back(run: Run, agent: FakeAgent) -> None:
    updated(agent, retiring=False)
    result = coordinator_pb2.ReleaseResult(cpus="2-3", memory_bytes=GIB, lost=["web"])
    agent.answer("Resume", coordinator_pb2.Progress(released=result))
    done = run("update", "resume")
    assert done.code == 0
    assert done.out.splitlines()[-2:] == [
        "everything is taken back: CPUs 2-3, 1 GiB of memory",
        "lost: web",
    ]
    data = json.loads(run("update", "resume", "--json").out)
    assert (data["state"], data["lost"]) == ("idle", ["web"])


def test_show(run: Run, agent: FakeAgent) -> None:
    state = coordinator_pb2.CoordinatorState(
        root=1,
        state="joined",
        error="no answer",
        wanted="handover",
        next="`multiroot update resume` goes on",
        lost=["db"],
        steps=[
            coordinator_pb2.StepTime(step="join", edge="done", begin_ns=10**18, end_ns=10**18 + 15 * 10**8)
        ],
        owners=[coordinator_pb2.VmOwner(name="web", root=2)],
    )
    agent.answer("GetState", state)
    lines = [" ".join(line.split()) for line in run("update", "show").out.splitlines()]
    for line in ("state joined", "lost db", "next `multiroot update resume` goes on", "web 2"):
        assert line in lines
    assert any(line.startswith("join done 2001-09-09") and line.endswith(" 1.500") for line in lines)
    assert json.loads(run("update", "show", "--json").out) == {
        "root": 1,
        "state": "joined",
        "wanted": "handover",
        "error": "no answer",
        "next": "`multiroot update resume` goes on",
        "lost": ["db"],
        "taking_over": "",
        "taking_over_error": "",
        "steps": [{"step": "join", "edge": "done", "begin_ns": 10**18, "end_ns": 10**18 + 15 * 10**8}],
        "owners": {"web": 2},
        "crash": None,
    }


def test_a_crash_is_shown_with_what_the_cpus_did(run: Run, agent: FakeAgent) -> None:
    crash = coordinator_pb2.Crash(
        root=2, what="root 2's kernel panicked", hint="all its messages: `cat x`", traces=["CPU 0: init"]
    )
    agent.answer("GetState", coordinator_pb2.CoordinatorState(root=1, state="joined", crash=crash))
    lines = [" ".join(line.split()) for line in run("update", "show").out.splitlines()]
    assert "crash root 2's kernel panicked" in lines
    assert lines[-2:] == ["CPU 0: init", "all its messages: `cat x`"]
    data = json.loads(run("update", "show", "--json").out)
    assert data["crash"] == {
        "root": 2,
        "what": "root 2's kernel panicked",
        "hint": "all its messages: `cat x`",
        "traces": ["CPU 0: init"],
    }


USUAL = coordinator_pb2.HandoffTerms(downtime_limit_ms=300, group=1, preparing=4, order="given")
HANDED = coordinator_pb2.HandoffResult(
    name="vm0", epoch=2, device_state_bytes=70_000, stopped_ns=1_000_000, resumed_ns=43_500_000
)


@pytest.mark.parametrize(("to", "giver"), [("new", "old"), ("old", "new")])
def test_the_giver_is_asked_for_a_handoff(run: Run, agent: FakeAgent, to: str, giver: str) -> None:
    agent.answer("Handoff", coordinator_pb2.Progress(handed_off=HANDED), root=giver)
    done = run("handoff", "vm0", "--to", to)
    assert done.code == 0
    assert done.out == (
        "vm0 handed over, epoch 2: 70000 bytes of device state, 0 bytes of RAM copied, "
        "no vCPU ran for 42.5 ms\n"
    )
    assert agent.requests("Handoff") == [coordinator_pb2.HandoffRequest(names=["vm0"], to=to, terms=USUAL)]


def test_several_vms_on_terms(run: Run, agent: FakeAgent) -> None:
    db = coordinator_pb2.HandoffResult(name="db", epoch=2, stopped_ns=5, resumed_ns=1_000_005)
    agent.answer(
        "Handoff",
        coordinator_pb2.Progress(handed_off=HANDED),
        coordinator_pb2.Progress(handed_off=db),
        root="old",
    )
    words = [
        "--group",
        "2",
        "--preparing",
        "3",
        "--downtime-limit",
        "70",
        "--order",
        "largest",
        "--first",
        "db",
    ]
    done = run("handoff", "vm0", "db", *words)
    assert [line.split()[0] for line in done.out.splitlines()] == ["vm0", "db"]
    terms = coordinator_pb2.HandoffTerms(
        downtime_limit_ms=70, group=2, preparing=3, order="largest", first=["db"]
    )
    wanted = coordinator_pb2.HandoffRequest(names=["vm0", "db"], to="new", terms=terms)
    assert agent.requests("Handoff") == [wanted]
    assert [each["name"] for each in json.loads(run("handoff", "--all", "--json").out)] == ["vm0", "db"]
    assert agent.requests("Handoff")[-1] == coordinator_pb2.HandoffRequest(all=True, to="new", terms=USUAL)


def test_those_that_arrived_are_told_though_others_stay(run: Run, agent: FakeAgent) -> None:
    error = ConflictError("1 of 2 VMs stay: db: it is busy", "try again")
    agent.answer("Handoff", coordinator_pb2.Progress(handed_off=HANDED), error, root="old")
    done = run("handoff", "vm0", "db")
    assert done.code == 3
    assert done.out.startswith("vm0 handed over")
    assert done.err == "multiroot: 1 of 2 VMs stay: db: it is busy (try again)\n"


@pytest.mark.parametrize(
    "words", [(), ("--all", "vm0"), ("vm0", "--downtime-limit", "0"), ("--group", "9", "vm0")]
)
def test_a_handoff_that_nobody_can_mean(run: Run, agent: FakeAgent, words: tuple[str, ...]) -> None:
    assert run("handoff", "start", *words).code == 2
    assert not agent.calls


def test_the_limit_may_come_from_the_environment(
    run: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIROOT_DOWNTIME_LIMIT", "1234")
    agent.answer("Handoff", coordinator_pb2.Progress(handed_off=HANDED), root="old")
    assert run("handoff", "vm0").code == 0
    assert agent.requests("Handoff")[0].terms.downtime_limit_ms == 1234


def test_how_long_a_root_may_take_to_join_may_come_from_the_environment(
    run: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIROOT_JOIN_TIMEOUT", "480")
    updated(agent, retiring=False)
    assert run("update", "--kernel", "6.12").code == 0
    agent.answer("Launch", ConflictError("enough is known"), root="old")
    assert run("root", "launch", "--kernel", "6.12").code == 3
    assert agent.requests("Update")[0].launch.join_timeout_s == 480
    assert agent.requests("Launch")[0].join_timeout_s == 480


@pytest.mark.parametrize("words", [("start",), ("--to", "new")])
def test_a_vm_may_be_called_like_a_command(run: Run, agent: FakeAgent, words: tuple[str, ...]) -> None:
    """Hints name options first for that."""
    agent.answer("Handoff", coordinator_pb2.Progress(handed_off=HANDED), root="old")
    assert run("handoff", *words, "cancel").code == 0
    assert agent.requests("Handoff")[0].names == ["cancel"]


def test_when_that_root_has_no_vm_there_is_nothing_to_hand_over(run: Run, agent: FakeAgent) -> None:
    """As when the command is given a second time."""
    agent.answer("Handoff", root="old")
    done = run("handoff", "--all")
    assert (done.code, done.out, done.err) == (0, "there is no VM to hand over\n", "")
    done = run("handoff", "--all", "--json")
    assert (done.code, json.loads(done.out)) == (0, [])


@pytest.mark.parametrize(
    ("stay", "gone", "code", "says"),
    [
        (["vm0"], [], 0, "vm0 stays\n"),
        ([], [], 0, "nothing is being handed over\n"),
        (["db"], ["vm0"], 3, "db stays\n"),
    ],
)
def test_a_handoff_is_cancelled_unless_it_is_too_late(
    run: Run, agent: FakeAgent, stay: list[str], gone: list[str], code: int, says: str
) -> None:
    agent.answer("CancelHandoff", coordinator_pb2.CancelHandoffResponse(stay=stay, gone=gone))
    done = run("handoff", "cancel")
    assert (done.code, done.out) == (code, says)
    assert ("too late, handed over: vm0" in done.err) == bool(gone)
    data = json.loads(run("handoff", "cancel", "--json").out)
    assert data == {"stay": stay, "gone": gone}


def test_a_handoff_as_data(run: Run, agent: FakeAgent) -> None:
    moved = device_pb2.DeviceMoved(same=512, switch_ns=1_250_000)
    result = coordinator_pb2.HandoffResult(name="vm0", epoch=3, stopped_ns=5, device=moved)
    agent.answer("Handoff", coordinator_pb2.Progress(handed_off=result), root="old")
    data = json.loads(run("handoff", "vm0", "--json").out)
    assert (data["epoch"], data["blackout_ms"], data["device"]["same"]) == (3, None, 512)
    text = run("handoff", "vm0").out
    assert "the new root's answer was lost" in text
    assert "512 pages translate the same, switched in 1.25 ms" in text


def test_a_handoff_that_is_refused(run: Run, agent: FakeAgent) -> None:
    agent.answer("Handoff", ConflictError("there is no new root", "launch one"), root="old")
    done = run("handoff", "vm0")
    assert (done.code, done.out, done.err) == (3, "", "multiroot: there is no new root (launch one)\n")
