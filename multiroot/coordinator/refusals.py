# SPDX-License-Identifier: GPL-2.0-or-later
"""What a coordinator says of requests that it does not take, and of steps that failed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from multiroot.coordinator import outlook
from multiroot.coordinator.requests import differences
from multiroot.coordinator.states import STEPS, Standing
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.phase_names import PhaseName

if TYPE_CHECKING:
    from multiroot.coordinator.coordinator import Data

_LOOK = "`multiroot update show` tells how far it is"
_OF_HANDOFF = ("handing ", "preparing ")  # so begins what is done to VMs alone


def why(error: BaseException) -> str:
    """What is told of a step's end; of an error that nobody expected its kind, too, for it may say little."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return (
        str(error) if isinstance(error, MultirootError) else f"{type(error).__name__}: {error}".rstrip(": ")
    )


def under_way(doing: str, *, stoppable: bool) -> ConflictError:
    """What keeps another request from being begun; `stoppable`: an abort ends it before it is done."""
    if doing.startswith(_OF_HANDOFF):
        hint = f"{_LOOK}; `multiroot handoff cancel` stops VMs on their way"
        return ConflictError(f"a handoff is under way: {doing}", hint)
    hint = f"{_LOOK}; `multiroot update abort` takes it back" if stoppable else _LOOK
    return ConflictError(f"an update is under way: {doing}", hint)


def need_step(name: str) -> None:
    """Raises BadRequestError for what is no step of an update."""
    if name not in STEPS:
        raise BadRequestError(f"there is no step {name!r}", f"steps: {', '.join(STEPS)}")


def refuse_another(first: Data, standing: Standing) -> None:
    """Raises ConflictError when `first` asks for another update than the one that is under way."""
    other = differences(first.get("request", {}), standing.data.get(PhaseName.PLAN, {}))
    if other:
        raise ConflictError(
            f"the update under way is one {', and '.join(other)}", outlook.next_step(standing, "", None)
        )
