# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.machines import default_machine

from multiroot.errors import ConflictError, PeerLostError
from multiroot.lab import forwards, state
from multiroot.lab.forwards import Forward, parse
from multiroot.lab.state import LabState

SAID = """Hub -1 (net):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[TIME_WAIT]     27       127.0.0.1 45621       10.0.2.15  7700     0     0\r
  TCP[HOST_FORWARD]  14       127.0.0.1 44301       10.0.2.15  7701     0     0\r
Hub -1 (uplink):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   31       127.0.0.1 46167       10.77.1.5  7000     0     0\r
  TCP[HOST_FORWARD]  29       127.0.0.1 46167       10.77.1.5  7000     0     0\r
  TCP[HOST_FORWARD]  30       127.0.0.1  8080       10.77.4.1    80     0     0\r
  UDP[236 sec]       33       127.0.0.1 50000       10.77.3.3    53     0     0\r
"""


def test_only_ways_to_guests_are_meant() -> None:
    assert parse(SAID) == [Forward(8080, "10.77.4.1", 80), Forward(46167, "10.77.1.5", 7000)]
    assert parse(SAID, "net") == [Forward(44301, "10.0.2.15", 7701)]
    assert parse(SAID, "other") == []


@given(text=st.text())
def test_any_text_has_some_or_none(text: str) -> None:
    assert isinstance(parse(text), list)


class Slirp:
    """QEMU's user network, as its monitor shows it. Ports in `taken` are another program's."""

    def __init__(self) -> None:
        self.ways: dict[int, str] = {}
        self.taken: set[int] = set()

    def ask(self, lab: LabState, commands: Sequence[str]) -> list[str]:
        return [self._do(*command.split()) for command in commands]

    def _do(self, command: str, *words: str) -> str:
        if command == "info":
            lines = [
                f"  TCP[HOST_FORWARD]  9  127.0.0.1 {port} {to.replace(':', ' ')} 0 0"
                for port, to in self.ways.items()
            ]
            return "\n".join(["Hub -1 (uplink):", *lines])
        found = re.fullmatch(r"tcp:127\.0\.0\.1:(\d+)(?:-(.*))?", words[1])
        assert found
        port = int(found[1])
        if command == "hostfwd_remove":
            del self.ways[port]
            return ""
        port = port or next(each for each in range(40000, 50000) if each not in self.ways)
        if port in self.taken or port in self.ways:
            return "could not set up host forwarding rule"
        self.ways[port] = found[2]
        return ""


@pytest.fixture
def slirp(monkeypatch: pytest.MonkeyPatch) -> Slirp:
    made = Slirp()
    monkeypatch.setattr(forwards, "_ask", made.ask)
    return made


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabState:
    return state.create(default_machine(tmp_path, monkeypatch), "digest")


def test_what_leads_to_a_vm_that_is_gone_is_taken_away(slirp: Slirp, lab: LabState) -> None:
    forwards.add(lab, "10.77.3.15", 80, 8080, vm="web")
    ssh = forwards.add(lab, "10.77.3.15", 22, vm="web")
    forwards.add(lab, "10.77.3.16", 80, 8081, vm="db")
    forwards.add(lab, "10.77.3.17", 7, 8082)
    for vm in ("web", "db"):
        forwards.known_hosts(lab, vm).touch()
    assert [(each.port, each.vm) for each in forwards.listed(lab)] == [
        (8080, "web"), (8081, "db"), (8082, ""), (ssh.port, "web"),
    ]  # fmt: skip
    forwards.forget(lab, gone=["web"])
    assert sorted(slirp.ways) == [8081, 8082]
    # The next VM of that name has other keys.
    assert not forwards.known_hosts(lab, "web").exists()
    assert forwards.known_hosts(lab, "db").exists()
    # Of what nobody has said whose it is, nobody knows whether it is needed.
    forwards.forget(lab, there=())
    assert sorted(slirp.ways) == [8082]


def test_a_port_leads_to_the_address_that_its_vm_has_now(slirp: Slirp, lab: LabState) -> None:
    first = forwards.add(lab, "10.77.3.15", 80, 8080, vm="web")
    assert forwards.add(lab, "10.77.3.15", 80, 8080, vm="web") == first
    assert forwards.add(lab, "10.77.3.15", 80, vm="web") == first
    forwards.add(lab, "10.77.3.16", 80, 8080, vm="web")
    assert slirp.ways == {8080: "10.77.3.16:80"}


def test_a_port_that_leads_elsewhere_is_named(slirp: Slirp, lab: LabState) -> None:
    forwards.add(lab, "10.77.3.15", 80, 8080, vm="web")
    for address, guest_port, vm in (("10.77.3.16", 80, "db"), ("10.77.3.15", 443, "web")):
        with pytest.raises(ConflictError) as raised:
            forwards.add(lab, address, guest_port, 8080, vm=vm)
        assert raised.value.message == "port 8080 leads to port 80 of web already"
        assert raised.value.hint == "take it away: multiroot vm forward web 8080:80 --remove"
    assert slirp.ways == {8080: "10.77.3.15:80"}


def test_a_port_of_another_program_is_named(slirp: Slirp, lab: LabState) -> None:
    with socket.create_server((forwards.HOST, 0)) as other:
        port = other.getsockname()[1]
        slirp.taken.add(port)
        with pytest.raises(ConflictError) as raised:
            forwards.add(lab, "10.77.3.15", 80, port, vm="web")
    assert raised.value.message == f"port {port} of this computer is in use by another program"
    assert raised.value.hint == "have one that is free: multiroot vm forward web 80"
    with pytest.raises(ConflictError, match="cannot be forwarded: could not set up"):
        forwards.add(lab, "10.77.3.15", 80, port, vm="web")


def test_many_at_once_forget_nothing(slirp: Slirp, lab: LabState) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: forwards.add(lab, f"10.77.4.{n}", 80, vm=f"vm{n}"), range(1, 33)))
    assert sorted(each.vm for each in forwards.listed(lab)) == sorted(f"vm{n}" for n in range(1, 33))


def test_of_a_lab_that_is_gone_there_is_nothing(slirp: Slirp, lab: LabState) -> None:
    elsewhere = dataclasses.replace(lab.machine, state=lab.folder / "none")
    with pytest.raises(PeerLostError, match="is gone"):
        forwards.listed(dataclasses.replace(lab, machine=elsewhere))
