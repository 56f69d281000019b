# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU records what it does in a handoff only where somebody has made the folder for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiroot.vm.qemu import own_trace
from multiroot.vm.qemu.own_trace import LOAD, SAVE, OwnTrace


class Qmp:
    """Keeps what QEMU is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    async def execute(self, command: str, **arguments: Any) -> None:
        self.told.append((command, arguments.get("command_line", arguments.get("enable"))))


async def test_events_are_on_for_as_long_as_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wanted"
    monkeypatch.setattr(own_trace, "FOLDER", folder)
    qmp: Any = Qmp()
    trace = OwnTrace(qmp, "vm0")
    await trace.begin(LOAD)
    assert qmp.told == []
    folder.mkdir()
    await trace.begin(LOAD)
    first, *events = qmp.told
    assert first == ("human-monitor-command", f"logfile {folder}/load-vm0")
    assert events == [("trace-event-set-state", True)] * 4
    folder.rmdir()
    qmp.told.clear()
    await trace.begin(SAVE)
    assert qmp.told == [("trace-event-set-state", False)] * 4
    await trace.begin(SAVE)
    assert len(qmp.told) == 4
