# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocking QMP: events and answers come in any order, and QEMU may go away at any time."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from multiroot.errors import CommandError
from multiroot.vm.qemu.monitor import Monitor
from multiroot.vm.vmm import VmmGoneError

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


def test_a_command_begun_is_whole_when_it_is_finished(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    monitor.begin("cont")
    begun = qemu.recv(1000)
    with pytest.raises(json.JSONDecodeError):
        json.loads(begun)
    say(qemu, event("MIGRATION", status="completed"))
    assert monitor.event("MIGRATION", "completed")
    say(qemu, {"error": {"class": "GenericError", "desc": "not now"}})
    with pytest.raises(CommandError, match="QEMU refused cont: not now"):
        monitor.finish()
    assert json.loads(begun + qemu.recv(1000)) == {"execute": "cont"}


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
