# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults while a new root is launched or released. The VM runs in the old root and must notice nothing."""

from __future__ import annotations

from multiroot.failpoints import Action, FailPoint, Order
from multiroot.faults import strikes
from multiroot.faults.fault import GIVER, Aimed, During, Fault
from multiroot.phase_names import PhaseName

STEPS = (PhaseName.CARVE, PhaseName.OFFLINE, PhaseName.LOAD, PhaseName.START, PhaseName.JOIN)


def all_faults() -> list[Fault]:
    """Those of a launch first, so that the lab goes once from without to with a new root."""
    return [*_crashes(), *_undos(), *_others()]


def _order(point: FailPoint, action: Action, step: str) -> Aimed:
    return Aimed(GIVER, Order(point, action, step))


def _crashes() -> list[Fault]:
    faults = []
    for step in STEPS:
        for point, when in ((FailPoint.STEP_BEGUN, "begins"), (FailPoint.STEP_DONE, "is done")):
            what = f"the agent crashes when {step} {when}"
            name = f"{point}:{step}/exit"
            orders = (_order(point, Action.EXIT, step),)
            short = (step, point) == (PhaseName.START, FailPoint.STEP_DONE)
            faults.append(Fault(name, step, what, during=During.LAUNCH, orders=orders, short=short))
    return faults


def _undos() -> list[Fault]:
    """A launch that fails, and an agent that crashes while it takes the launch back."""
    faults = []
    for step in (PhaseName.CARVE, PhaseName.OFFLINE, PhaseName.START):
        for point, when in ((FailPoint.UNDO_BEGUN, "begins"), (FailPoint.UNDO_DONE, "is done")):
            what = f"the launch fails, and the agent crashes when the undo of {step} {when}"
            orders = (
                _order(point, Action.EXIT, step),
                _order(FailPoint.STEP_BEGUN, Action.RAISE, PhaseName.JOIN),
            )
            faults.append(Fault(f"{point}:{step}/exit", step, what, during=During.LAUNCH, orders=orders))
    return faults


def _others() -> list[Fault]:
    loop, stop = strikes.keep_bringing_online, strikes.stop_bringing_online
    online = "`echo 1 > online` in a loop for the new root's CPUs"
    crash = _order(FailPoint.UNDO_DONE, Action.EXIT, PhaseName.START)
    return [
        Fault("launch/online", "launch", online, during=During.LAUNCH, before=loop, after=stop),
        Fault(
            "launch/disk full",
            "launch",
            "no room for the journal",
            during=During.LAUNCH,
            before=strikes.fill(GIVER, "/var/lib"),
            after=strikes.empty(GIVER, "/var/lib"),
        ),
        Fault("release/online", "release", online, during=During.RELEASE, before=loop, after=stop),
        Fault(
            "release/exit",
            "release",
            "the agent crashes when the new root was stopped",
            during=During.RELEASE,
            orders=(crash,),
        ),
    ]
