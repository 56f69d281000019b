# SPDX-License-Identifier: GPL-2.0-or-later
"""What is to be done next with an update, for whoever looks at it. Pure: no I/O."""

from __future__ import annotations

from multiroot.coordinator.states import LAUNCH, STEPS, Standing, State
from multiroot.errors import MultirootError

BACK = "`multiroot update abort` takes everything back"
LOOK = (
    "`multiroot root backtrace new`, `multiroot root dump new`; `multiroot root release` gives all of it back"
)


def next_step(standing: Standing, doing: str, problem: MultirootError | None) -> str:
    """One line: what to wait for or which command to give; "" when there is nothing to do.

    `doing` is what the coordinator is busy with, `problem` why the journal cannot be read.
    """
    if problem:
        return problem.hint
    if doing:
        return f"wait: it is {doing}"
    if not standing.begun:
        return ""
    if standing.undoing:
        force = "; `multiroot update abort --force` loses VMs that do not come back" if standing.error else ""
        return f"`multiroot update resume` finishes taking it back{force}"
    wanted = standing.wanted[0] if standing.wanted else ""
    if not wanted and standing.error and standing.begun[-1] in LAUNCH:
        return f"the new root stays as it is: {LOOK}"
    if wanted and _index(standing.state) < list(STEPS).index(wanted):
        on = f"`multiroot update resume` goes on to {wanted}"
    else:
        on = "`multiroot update resume --until retire` goes on to the end"
    return on if standing.state in (State.COMMITTED, State.RETIRING) else f"{on}; {BACK}"


def _index(state: State) -> int:
    """Of the step that leads to a state; -1 for idle."""
    return [State.IDLE, *STEPS.values()].index(state) - 1
