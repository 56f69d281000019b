# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever is not answered by a lab machine is told when the machine has ended or its kernel has panicked."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from lab.machines import default_machine

from multiroot import processes
from multiroot.errors import BadRequestError, MultirootError, PeerLostError, WaitTimeoutError
from multiroot.lab.recorder import console_log
from multiroot.lab.state import EVENTS_LOG, LabState
from multiroot.lab.trouble import explained

SAID = b"""29697863996699 [    0.000000] Linux version 6.12
30144812869000 [  447.065878] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI
"""
PANIC = b"30144839641000 [  447.092660] Kernel panic - not syncing: Fatal exception in interrupt\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabState:
    """One that lives as long as we do."""
    machine = default_machine(tmp_path, monkeypatch)
    machine.state.mkdir(parents=True, exist_ok=True)
    (machine.state / console_log("old")).write_bytes(SAID)
    return LabState(machine, "digest", pid=os.getpid(), started=processes.start_time(os.getpid()))


def raised(lab: LabState, error: MultirootError) -> MultirootError:
    with pytest.raises(MultirootError) as caught, explained(lab):
        raise error
    return caught.value


SILENT = WaitTimeoutError("python3 said nothing for 400 s")


def test_while_machine_and_kernel_are_there_the_error_stays_what_it_is(lab: LabState) -> None:
    assert raised(lab, SILENT) is SILENT


@pytest.mark.parametrize("error", [SILENT, PeerLostError("the exec service hung up")])
def test_the_kernels_panic_is_told(lab: LabState, error: MultirootError) -> None:
    with (lab.folder / console_log("old")).open("ab") as log:
        log.write(PANIC)
    told = raised(lab, error)
    assert isinstance(told, PeerLostError)
    assert told.message == (
        "the old root's kernel has panicked: Kernel panic - not syncing: Fatal exception in interrupt"
    )
    assert told.hint == f"see what it said: `multiroot lab logs --name {lab.machine.name}`"


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "the lab machine has ended"),
        (
            [{"ns": 1, "event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}],
            "the lab machine has ended (shutdown guest-reset)",
        ),
        ([{"ns": 1, "event": "RTC_CHANGE", "data": {"offset": 0}}], "the lab machine has ended"),
    ],
)
def test_the_machines_end_is_told(lab: LabState, events: list[dict[str, object]], says: str) -> None:
    (lab.folder / EVENTS_LOG).write_text("".join(json.dumps(event) + "\n" for event in events))
    ended = dataclasses.replace(lab, started=lab.started + 1)
    assert raised(ended, SILENT).message == says


def test_what_is_no_silence_is_no_machines_fault(lab: LabState) -> None:
    wrong = BadRequestError("no root called 'x'")
    assert raised(dataclasses.replace(lab, started=0), wrong) is wrong
