# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from cli.conftest import FakeAgent, Run
from hypothesis import given
from hypothesis import strategies as st
from lab.machines import default_machine
from lab.test_lab_forwards import Slirp

from multiroot import proc
from multiroot.cli import vm, vm_network, vm_ssh
from multiroot.cli.vm_network import address_in, parse_ports
from multiroot.cli.vm_signs import Signs
from multiroot.errors import BadRequestError, PeerLostError, WaitTimeoutError
from multiroot.lab import forwards, state, trouble
from multiroot.lab.state import LabState
from multiroot.rpc.v1 import vm_pb2


@pytest.mark.parametrize(
    ("text", "ports"), [("80", (0, 80)), ("8080:80", (8080, 80)), ("65535:1", (65535, 1))]
)
def test_ports(text: str, ports: tuple[int, int]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text", ["", ":", "80:", ":80", "0:80", "80:0", "65536", "-1:80", "1:2:3", "\u0662:80", "http"]
)
def test_what_are_no_ports(text: str) -> None:
    with pytest.raises(BadRequestError, match="not ports"):
        parse_ports(text)


@given(text=st.text())
def test_any_text_is_ports_or_refused(text: str) -> None:
    try:
        here, there = parse_ports(text)
    except BadRequestError:
        return
    assert 0 <= here <= 65535
    assert 1 <= there <= 65535


def test_a_guest_is_where_it_was_seen_last_else_where_it_was_told_to_be() -> None:
    cards = [
        vm_pb2.Card(mac="52:54:00:00:00:01", address="10.77.1.5/16"),
        vm_pb2.Card(mac="52:54:00:00:00:02"),
    ]
    vm = vm_pb2.Vm(definition=vm_pb2.VmDefinition(cards=cards))
    assert address_in(vm) == "10.77.1.5"
    vm.stations.add(mac="52:54:00:00:00:02", address="10.77.4.1")
    assert address_in(vm) == "10.77.1.5"
    vm.stations.add(mac="52:54:00:00:00:01", address="10.77.4.2")
    assert address_in(vm) == "10.77.4.2"
    assert address_in(vm_pb2.Vm()) == ""


def there(name: str = "web", state: str = "running", *seen: str) -> vm_pb2.Vm:
    """A VM with one card, whose guest was seen to use these addresses."""
    mac = "52:54:00:00:00:01"
    made = vm_pb2.Vm(state=state, definition=vm_pb2.VmDefinition(name=name, cards=[vm_pb2.Card(mac=mac)]))
    made.stations.extend(vm_pb2.Station(mac=mac, address=address) for address in seen)
    return made


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabState:
    """The one whose agent is asked."""
    made = state.create(default_machine(tmp_path, monkeypatch), "digest")
    for module in (vm, vm_network, vm_ssh):
        monkeypatch.setattr(module, "lab_of_agent", lambda: made)
    return made


@pytest.fixture
def slirp(monkeypatch: pytest.MonkeyPatch) -> Slirp:
    made = Slirp()
    monkeypatch.setattr(forwards, "_ask", made.ask)
    return made


def test_a_list_has_the_addresses_that_guests_were_given(run: Run, agent: FakeAgent) -> None:
    told = there("db", "running", "10.77.1.5")
    told.definition.cards[0].address = "10.77.1.5/16"
    moved = there("moved", "running", "10.77.3.18")
    moved.definition.cards[0].address = "10.77.1.6/16"
    answer(agent, there("web", "running", "10.77.3.15"), told, moved, there("none", "stopped"))
    lines = [line.split() for line in run("vm", "list").out.splitlines() if line.strip()]
    assert {line[0]: line[-1] for line in lines[-4:]} == {
        "web": "10.77.3.15", "db": "10.77.1.5/16", "moved": "10.77.3.18", "none": "-",
    }  # fmt: skip


def answer(agent: FakeAgent, *vms: vm_pb2.Vm) -> None:
    agent.answer("List", vm_pb2.ListVmsResponse(vms=vms))
    agent.answer("Get", *vms[:1])


def test_ways_are_made_shown_and_taken_away(run: Run, agent: FakeAgent, lab: LabState, slirp: Slirp) -> None:
    answer(agent, there("web", "running", "10.77.3.15"))
    for words in (("8080:80",), ("8081:80",), ("443",)):
        assert run("vm", "forward", "web", *words).code == 0
    assert [each["port"] for each in json.loads(run("vm", "forward", "web", "--json").out)] == [
        8080, 8081, 40000,
    ]  # fmt: skip
    done = run("vm", "forward", "web", "8081:80", "--remove")
    assert (done.code, done.out) == (0, "port 8081 of this computer leads nowhere now\n")
    assert sorted(slirp.ways) == [8080, 40000]
    assert run("vm", "forward", "web", "80", "--remove").code == 0
    assert run("vm", "forward", "web", "443", "--remove").code == 0
    assert slirp.ways == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("8080", "no port of this computer leads to port 8080 of web (port 8080 leads to port 80:"),
        ("8080:443", "port 8080 of this computer leads not to port 443 of web (port 8080 leads to port 80:"),
        ("9090:80", "port 9090 of this computer leads not to port 80 of web (port 8080 leads to port 80:"),
        ("9", "no port of this computer leads to port 9 of web (what does: multiroot vm forward web)"),
    ],
)
def test_which_port_is_meant_is_said(
    run: Run, agent: FakeAgent, lab: LabState, slirp: Slirp, words: str, says: str
) -> None:
    answer(agent, there("web", "running", "10.77.3.15"))
    run("vm", "forward", "web", "8080:80")
    refused = run("vm", "forward", "web", words, "--remove")
    assert refused.code == 3
    assert says in refused.err
    if "leads to" in says.partition("(")[2]:
        assert refused.err.endswith("multiroot vm forward web 8080:80 --remove)\n")
    assert slirp.ways == {8080: "10.77.3.15:80"}


def test_a_vm_that_is_removed_leaves_no_way(run: Run, agent: FakeAgent, lab: LabState, slirp: Slirp) -> None:
    answer(agent, there("web", "running", "10.77.3.15"))
    agent.answer("Remove", vm_pb2.RemoveVmResponse())
    run("vm", "forward", "web", "8080:80")
    assert run("vm", "rm", "web").out == "web removed\n"
    assert slirp.ways == {}


def test_nor_does_one_that_was_removed_in_a_root(
    run: Run, agent: FakeAgent, lab: LabState, slirp: Slirp
) -> None:
    answer(agent, there("web", "running", "10.77.3.15"))
    run("vm", "forward", "web", "8080:80")
    answer(agent, there("db", "running", "10.77.3.15"))
    assert run("vm", "forward", "db").out == "no port leads there\n"
    assert slirp.ways == {}


def test_of_a_stopped_vm_ways_can_be_taken_away(
    run: Run, agent: FakeAgent, lab: LabState, slirp: Slirp
) -> None:
    """It has no address, and may have the same again."""
    answer(agent, there("web", "running", "10.77.3.15"))
    run("vm", "forward", "web", "8080:80")
    answer(agent, there("web", "stopped"))
    assert "127.0.0.1:8080" in run("vm", "forward", "web").out
    assert run("vm", "forward", "web", "80", "--remove").code == 0
    assert slirp.ways == {}


@contextmanager
def sshd(port: int, greeting: bytes, times: int = 9) -> Iterator[None]:
    """Who takes connections on the loopback, greets with that, and closes."""
    with socket.create_server((forwards.HOST, port)) as listener:

        def serve() -> None:
            for _ in range(times):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class BecameError(Exception):
    """In place of another program."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(argv: list[str]) -> NoReturn:
        raise BecameError(*argv)

    monkeypatch.setattr(proc, "become", become)
    monkeypatch.setattr(proc, "find", lambda program: f"/usr/bin/{program}")


def free_port() -> int:
    with socket.create_server((forwards.HOST, 0)) as found:
        return int(found.getsockname()[1])


def test_ssh_waits_for_a_guest_that_boots(
    agent: FakeAgent,
    lab: LabState,
    slirp: Slirp,
    became: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    monkeypatch.setattr(forwards, "add", lambda *_, vm: forwards.Forward(port, "10.77.3.15", 22, vm))
    vms = iter([there(), there(), *[there("web", "running", "10.77.3.15")] * 9])
    monkeypatch.setattr(vm_ssh, "find_vm", lambda name: next(vms))
    answer(agent, there())
    servers = iter([b"", b"", b"SSH-2.0-OpenSSH\r\n"])
    silent = vm_ssh.Way._silence

    def silence(way: vm_ssh.Way) -> str:
        with sshd(port, next(servers)):
            return silent(way)

    monkeypatch.setattr(vm_ssh.Way, "_silence", silence)
    monkeypatch.setattr(vm_ssh, "_SILENT_S", 0)
    way = vm_ssh.Way("web")
    vm_ssh.wait(way, way.missing(), 30, Signs("web"), pause_s=0.001)
    assert capsys.readouterr().err.splitlines() == [
        "web: it has asked for no address yet; waiting for it, Ctrl-C leaves",
        "web: nothing listens at port 22 of 10.77.3.15 yet; waiting for it, Ctrl-C leaves",
    ]
    assert way.argv[:3] == ["ssh", "-p", str(port)]
    assert "HostKeyAlias=web" in way.argv


def test_ssh_asks_an_agent_again_that_does_not_answer_in_time(
    lab: LabState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be amid an update, and so may be the call that tidies up."""
    late = WaitTimeoutError("the agent did not answer in time", "see to it")
    tidied, found = iter([late, None]), iter([late, there(), late])

    def next_of(answers: Iterator[vm_pb2.Vm | WaitTimeoutError | None]) -> vm_pb2.Vm | None:
        answer = next(answers)
        if isinstance(answer, WaitTimeoutError):
            raise answer
        return answer

    monkeypatch.setattr(vm_ssh, "tidy", lambda lab: next_of(tidied))
    monkeypatch.setattr(vm_ssh, "find_vm", lambda name: next_of(found))
    monkeypatch.setattr(trouble, "check_machine", lambda lab: None)
    way = vm_ssh.Way("web")
    said = [way.missing() for _ in range(3)]
    assert said == [late.message, late.message, "it has asked for no address yet"]
    assert "vm console web --history" in way.look
    with pytest.raises(WaitTimeoutError, match="nobody in by SSH: the agent did not answer in time") as over:
        vm_ssh.wait(way, way.missing(), 0, Signs("web"))
    assert over.value.hint == "see to it"


def test_ssh_does_not_wait_for_a_lab_machine_that_has_ended(
    lab: LabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(lab: LabState) -> NoReturn:
        raise WaitTimeoutError("the agent did not answer in time")

    monkeypatch.setattr(vm_ssh, "tidy", late)
    with pytest.raises(PeerLostError, match="the lab machine has ended"):
        vm_ssh.Way("web").missing()


def test_a_lab_machine_that_ended_under_a_command_is_named(
    run: Run, lab: LabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.machine = replace(lab.machine, agent_port=free_port())
    monkeypatch.setattr(state, "at", lambda target: lab)
    monkeypatch.setenv("MULTIROOT_AGENT", lab.agent_target)
    done = run("vm", "list")
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith("multiroot: the lab machine has ended (see what it said: `multiroot lab logs")


@pytest.mark.parametrize(
    ("vm", "code", "says"),
    [
        (there("web", "running"), 4, "lets nobody in by SSH: it has asked for no address yet"),
        (
            there("web", "running", "10.77.3.15"),
            4,
            "lets nobody in by SSH: nothing listens at port 22 of 10.77",
        ),
        (there("web", "stopped"), 3, "web does not run, it is stopped (see to it: multiroot vm start web)"),
        (there("web", "paused"), 3, "web does not run, it is paused (see to it: multiroot vm resume web)"),
        (there("web", "failed"), 3, "web does not run, it is failed (see to it: multiroot vm show web)"),
    ],
)
def test_ssh_says_what_is_the_matter(
    run: Run,
    agent: FakeAgent,
    lab: LabState,
    slirp: Slirp,
    became: None,
    monkeypatch: pytest.MonkeyPatch,
    vm: vm_pb2.Vm,
    code: int,
    says: str,
) -> None:
    answer(agent, vm)
    done = run("vm", "ssh", "web", "--patience", "0")
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert done.err.count("\n") == 1
    if code == 4:
        assert "multiroot vm console web --history" in done.err
