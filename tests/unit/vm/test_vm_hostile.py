# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU says, what a giver hints, what a root keeps of a VM: understood or refused, whatever it is."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from anything import json_with, made_or_refused, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.arena.layout import Owner
from multiroot.errors import MultirootError
from multiroot.processes import ProcessId
from multiroot.vm.definition import VmDefinition
from multiroot.vm.folder import VmFolder, VmRecord
from multiroot.vm.history import parse
from multiroot.vm.qemu import memory_map
from multiroot.vm.qemu.monitor import Monitor
from multiroot.vm.qemu.qmp import Qmp, version_text, wall_ns
from multiroot.vm.qemu.vmm import ram_copied, statistics

STAMP = {"seconds": 1, "microseconds": 2}
EVENT = {"event": "MIGRATION", "data": {"status": "completed"}, "timestamp": STAMP}
WORDS = ("event", "data", "status", "return", "error", "desc", "timestamp", "seconds", "microseconds")
MESSAGES = json_with(*WORDS) | spoiled(EVENT) | spoiled({"error": {"desc": "no"}}) | st.just({"return": ""})
LINES = MESSAGES.map(lambda message: json.dumps(message).encode()) | st.binary(max_size=20)


@settings(max_examples=60)
@given(st.lists(LINES, max_size=5))
def test_any_lines_of_qemu_are_an_answer_or_an_error(lines: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    monitor = Monitor(ours)
    theirs.sendall(b"".join(line + b"\r\n" for line in lines))
    theirs.shutdown(socket.SHUT_WR)
    for use in (
        monitor.greet,
        lambda: monitor.human("info"),
        lambda: wall_ns(monitor.event("MIGRATION", "completed", "failed").get("timestamp")),
        lambda: monitor.event("RESUME"),
    ):
        with suppress(MultirootError):
            use()
    monitor.close()
    theirs.close()


def test_a_line_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiroot.vm.qemu.monitor._LONGEST", 100_000)
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x" * 100_001)
    with pytest.raises(MultirootError, match="speaks no QMP"):
        Monitor(ours).greet()
    theirs.close()


@settings(max_examples=60)
@given(spoiled(EVENT))
def test_any_event_is_taken_or_passed_over(message: Any) -> None:
    if not isinstance(message, dict) or "event" not in message:
        return  # the library hands us events only
    qmp = Qmp("vm0", lambda ns: ns)
    with qmp.watch("MIGRATION") as events:
        assert qmp._dispatch(message) is False
        for event in list(events._queue._queue):  # type: ignore[attr-defined]
            assert isinstance(event.data, dict)


VERSION = {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": ""}
RAM = {"ram": {"total": 1, "normal": 2, "page-size": 4096, "transferred": 9}, "status": "completed"}


@settings(max_examples=60)
@given(spoiled(VERSION), spoiled(RAM))
def test_any_answer_is_understood_or_refused(version: Any, status: Any) -> None:
    with suppress(MultirootError):
        assert version_text(version)
    with suppress(MultirootError):
        assert isinstance(ram_copied(statistics(status), 1), int)


HINTS = {"registers": [[0, 96, 4, 1], [1, 2, 3, 4]], "modern_hotplug": True}


@settings(max_examples=60)
@given(st.binary(max_size=40) | (spoiled(HINTS) | json_with(*HINTS)).map(json.dumps).map(str.encode))
def test_any_hints_are_understood_or_refused(hints: bytes) -> None:
    with suppress(MultirootError):
        known = memory_map.unpack(hints)
        for line in memory_map.lines("q35", known):
            assert line.startswith("o /")


@pytest.mark.parametrize("hints", [b'{"registers": [[1e999, 0, 0, 0]], "modern_hotplug": 1}', b"[" * 100_000])
def test_hints_that_are_none(hints: bytes) -> None:
    with pytest.raises(MultirootError, match="no memory map"):
        memory_map.unpack(hints)


RECORD = VmRecord(VmDefinition("vm0").checked(), "qemu", "11", ProcessId(7, 9), ("tap0",), Owner(2, 3))
GOOD = json.loads(json.dumps(asdict(RECORD)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=20) | (spoiled(GOOD) | json_with("definition")).map(json.dumps).map(str.encode))
def test_any_record_of_a_vm_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    folder = VmFolder(tmp_path, "vm0")
    folder.path.mkdir(exist_ok=True)
    (folder.path / "vm.json").write_bytes(data)
    record = made_or_refused(folder.read)
    if isinstance(record, MultirootError):
        assert record.message.startswith(f"{folder.path / 'vm.json'} is damaged: ")
        return
    assert record is not None
    assert record.process.alive() in (True, False)
    with suppress(MultirootError):
        record.definition.checked().checksum()


def test_a_record_comes_back(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    folder.make()
    folder.write(RECORD)
    assert folder.read() == RECORD


@given(st.binary(max_size=200))
def test_any_history_is_read(data: bytes) -> None:
    assert sum(len(piece.data) for piece in parse(data)) <= len(data)
