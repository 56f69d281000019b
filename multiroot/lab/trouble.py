# SPDX-License-Identifier: GPL-2.0-or-later
"""Why nobody in a lab machine answers: it has ended, or the kernel that it booted has panicked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from multiroot.errors import PeerLostError, WaitTimeoutError
from multiroot.lab.recorder import console_text
from multiroot.lab.state import LabState
from multiroot.lab.watchdog import how_ended
from multiroot.verdict.health import Health, judge

_STAMP = re.compile(r"^\d+ (\[ *\d+\.\d+\] )?")  # the recorder's and the kernel's


def check_machine(state: LabState) -> None:
    """Raises PeerLostError when it has ended."""
    if not state.alive():
        raise PeerLostError(f"the lab machine has ended{_how(state)}", _hint(state))


def check_kernel(state: LabState) -> None:
    """Raises PeerLostError when the kernel that the machine booted has panicked."""
    lines = console_text(state.folder, "old").split("\n")
    verdict = judge(_STAMP.sub("", line) for line in lines)
    if verdict.health is Health.DEAD:
        raise PeerLostError(f"the old root's kernel has panicked: {verdict.line}", _hint(state))


@contextmanager
def explained(state: LabState) -> Iterator[None]:
    """In the body somebody is asked who may be gone: then the error says so, and not that nobody answers."""
    try:
        yield
    except (PeerLostError, WaitTimeoutError):
        check_machine(state)
        check_kernel(state)
        raise


def _hint(state: LabState) -> str:
    return f"see what it said: `multiroot lab logs --name {state.machine.name}`"


def _how(state: LabState) -> str:
    told = [how for event in state.events() if (how := how_ended(event))]
    return f" ({told[0]})" if told else ""
