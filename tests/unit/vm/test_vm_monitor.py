# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocking QMP: events and answers come in any order, and QEMU may go away at any time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from multiroot.arena.atomics import Memory
from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.errors import CommandError
from multiroot.vm.qemu.monitor import Monitor
from multiroot.vm.vmm import VmmGoneError

WORD = Memory(bytearray(8))
STAMP = {"seconds": 1, "microseconds": 2}


@pytest.fixture
def ends() -> Iterator[tuple[Monitor, socket.socket]]:
    ours, theirs = socket.socketpair()
    monitor = Monitor(ours)
    yield monitor, theirs
    monitor.close()
    theirs.close()


def say(qemu: socket.socket, *messages: object) -> None:
    qemu.sendall(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


def event(name: str, **data: object) -> dict[str, object]:
    return {"event": name, "data": data, "timestamp": STAMP}


def test_an_event_before_the_answer_is_kept(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    say(qemu, event("RESUME"), {"return": {}})
    monitor.execute("cont")
    assert json.loads(qemu.recv(1000)) == {"execute": "cont"}
    assert monitor.event("RESUME")["timestamp"] == STAMP


def a_switch() -> Switch:
    """Of a state that was whole, for a VM that root 0 owns."""
    WORD.store(0, 0)
    made = Switch(WORD.address(0), 0, 1, time.monotonic_ns)
    made.state_ended(whole=True)
    return made


def test_a_command_begun_is_whole_when_it_is_finished(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    monitor.begin("cont")
    begun = qemu.recv(1000)
    with pytest.raises(json.JSONDecodeError):
        json.loads(begun)
    heard: list[dict[str, Any]] = []
    switch = a_switch()
    say(qemu, event("STOP"), event("MIGRATION", status="active"), event("MIGRATION", status="completed"))
    say(qemu, {"error": {"class": "GenericError", "desc": "not now"}})
    assert monitor.take(switch, Step.GONE, heard.append) is Outcome.DONE
    assert [each["data"] for each in heard] == [{"status": "completed"}]
    with pytest.raises(CommandError, match="QEMU refused cont: not now"):
        monitor.finish()
    assert json.loads(begun + qemu.recv(1000)) == {"execute": "cont"}


def test_a_state_that_was_loaded_before_anybody_waits_is_heard(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    say(qemu, event("MIGRATION", status="completed"), {"return": {}})
    monitor.execute("query-status")
    qemu.recv(1000)
    monitor.begin("cont")
    begun = qemu.recv(1000)
    heard: list[dict[str, Any]] = []
    assert monitor.take(a_switch(), Step.GONE, heard.append) is Outcome.DONE
    assert len(heard) == 1
    say(qemu, {"return": {}})
    monitor.finish()
    assert json.loads(begun + qemu.recv(1000)) == {"execute": "cont"}


def test_words_that_come_otherwise_than_usual_are_understood(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    told = json.dumps(event("MIGRATION", status="completed"), separators=(",", ":")).encode()
    qemu.sendall(told + b"\n")
    monitor.begin("cont")
    heard: list[dict[str, Any]] = []
    assert monitor.take(a_switch(), Step.TAKEN, heard.append) is Outcome.DONE
    assert len(heard) == 1


def test_a_state_that_failed_is_no_reason_to_go_on(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    say(qemu, event("MIGRATION", status="failed"))
    monitor.begin("cont")
    switch = a_switch()

    def refuse(_: dict[str, Any]) -> None:
        raise CommandError("refused")

    with pytest.raises(CommandError, match="refused"):
        monitor.take(switch, Step.GONE, refuse)
    assert switch.step is Step.BEGUN


def test_a_qemu_that_ends_before_it_has_loaded_the_state(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    monitor.begin("cont")
    qemu.close()
    with pytest.raises(VmmGoneError):
        monitor.take(a_switch(), Step.GONE, lambda _: None)


def test_other_events_and_statuses_are_passed_over(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    say(qemu, event("MIGRATION", status="setup"), event("STOP"), event("MIGRATION", status="failed"))
    assert monitor.event("MIGRATION", "completed", "failed")["data"] == {"status": "failed"}


def test_a_refusal_has_qemus_words(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    say(qemu, {"error": {"class": "GenericError", "desc": "not now"}})
    with pytest.raises(CommandError, match="QEMU refused cont: not now"):
        monitor.execute("cont")


def test_a_message_in_pieces(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    line = json.dumps(event("RESUME")).encode() + b"\n"
    qemu.sendall(line[:10])
    rest = threading.Timer(0.01, qemu.sendall, (line[10:],))
    rest.start()
    assert monitor.event("RESUME")["event"] == "RESUME"
    rest.join()


def test_qemu_goes_away(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    qemu.close()
    with pytest.raises(VmmGoneError):
        monitor.event("RESUME")
    with pytest.raises(VmmGoneError, match="during cont"):
        monitor.execute("cont")
