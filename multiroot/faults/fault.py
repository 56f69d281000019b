# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fault is, and what came of it. Pure data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from multiroot.failpoints import Action, FailPoint, Order
from multiroot.handoff.terms import PATIENT, Terms

if TYPE_CHECKING:
    from multiroot.faults.ground import Ground

GIVER, TAKER = "old", "new"  # in a fault, the VM is handed from the old root to the new one


class Fate(StrEnum):
    """What became of the VM. The text is what the table says."""

    STAYS = "runs in the old root"
    GOES = "runs in the new root"
    LOST = "lost with what ran it, and known as lost"


class During(StrEnum):
    """What is under way when the fault strikes."""

    HANDOFF = "handoff"
    LAUNCH = "launch"
    RELEASE = "release"
    UPDATE = "update"  # handover and commit


@dataclass(frozen=True)
class Aimed:
    """An order for the agent of one root."""

    root: str
    order: Order


Strike = Callable[["Ground"], None]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    `orders` are armed first. `before` is done then, `strike` as soon as the first order's point is reached.
    After the strike a pause without a time ends. `after` mends what the fault broke, when the handoff ended.
    `fates` may become of the VM. `ends` are the roots that die of it. `blind`: the guest's ticks are not all
    seen, because what reads them dies. `short`: part of the short matrix. `terms` are those of the handoff.
    """

    name: str
    step: str
    what: str
    fates: tuple[Fate, ...] = (Fate.STAYS,)
    during: During = During.HANDOFF
    orders: tuple[Aimed, ...] = ()
    before: Strike | None = None
    strike: Strike | None = None
    after: Strike | None = None
    ends: frozenset[str] = frozenset()
    blind: bool = False
    short: bool = False
    terms: Terms = PATIENT


@dataclass
class Outcome:
    """What came of a fault. `recovery_s` is from the strike until the VM's fate was settled.

    `problems` is what did not hold. `said` is what the command said that was under way.
    """

    name: str
    step: str
    what: str
    fate: str = ""
    recovery_s: float = 0.0
    said: str = ""
    problems: list[str] = field(default_factory=list)
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return not self.problems


def pause(root: str, point: FailPoint, about: str = "", seconds: float = 0.0) -> Aimed:
    """A pause, until the order is taken back or `seconds` are over."""
    return Aimed(root, Order(point, Action.PAUSE, about, seconds))


def side(point: FailPoint) -> str:
    """The root in which a point of a handoff is."""
    return TAKER if point.startswith("taker.") else GIVER
