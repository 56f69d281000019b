# SPDX-License-Identifier: GPL-2.0-or-later
"""How VMs are to be handed over, and in what order by that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import coordinator_pb2

DOWNTIME_LIMIT_MS = 300
# For those to whom a guest's return matters more than when: as long as a giver waits for Transfer.
DOWNTIME_MOST_MS = 30_000
GROUP_MOST = 8
PREPARING = 4
PREPARING_MOST = 32


class Order(StrEnum):
    """Which VM goes first."""

    GIVEN = "given"
    SMALLEST = "smallest"
    LARGEST = "largest"


@dataclass(frozen=True)
class Terms:
    """How VMs are handed over.

    `downtime_ms` is how long one may stand still until it is the taker's; `group` is how many may at once,
    and `preparing` how many are prepared at once. `first` names those that go before all others.
    """

    downtime_ms: int = DOWNTIME_LIMIT_MS
    group: int = 1
    preparing: int = PREPARING
    order: Order = Order.GIVEN
    first: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As the journal keeps them."""
        return {**asdict(self), "order": self.order.value, "first": list(self.first)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Terms:
        """What `to_dict` gave; the defaults for what an older journal lacks."""
        known = {name: data[name] for name in ("downtime_ms", "group", "preparing") if name in data}
        return cls(**known, order=Order(data.get("order", Order.GIVEN)), first=tuple(data.get("first", ())))


USUAL = Terms()
# When the guest has to come away, it matters less how long it stands still.
PATIENT = Terms(downtime_ms=DOWNTIME_MOST_MS)


def from_proto(message: coordinator_pb2.HandoffTerms) -> Terms:
    """The terms of a request; 0 and "" mean the defaults. Raises BadRequestError."""
    try:
        order = Order(message.order or Order.GIVEN)
    except ValueError as error:
        raise BadRequestError(f"there is no order {message.order!r}", f"say {', '.join(Order)}") from error
    return Terms(
        message.downtime_limit_ms or DOWNTIME_LIMIT_MS,
        message.group or 1,
        message.preparing or PREPARING,
        order,
        tuple(message.first),
    )


def to_proto(terms: Terms) -> coordinator_pb2.HandoffTerms:
    """The message for them."""
    return coordinator_pb2.HandoffTerms(
        downtime_limit_ms=terms.downtime_ms,
        group=terms.group,
        preparing=terms.preparing,
        order=terms.order.value,
        first=terms.first,
    )


def more_downtime(limit_ms: int) -> str:
    """What to say to `multiroot handoff` when a limit was too small."""
    return f"--downtime-limit {min(2 * limit_ms, DOWNTIME_MOST_MS)}"


def turns(vms: Iterable[tuple[str, int]], terms: Terms) -> list[list[str]]:
    """Who is handed over when: groups one after the other, each at once.

    `vms` are names and RAM in bytes. Raises BadRequestError when `first` names one that is not among them.
    """
    found = list(vms)
    unknown = [name for name in terms.first if name not in dict(found)]
    if unknown:
        raise BadRequestError(f"not handed over, and so not first: {', '.join(unknown)}")
    names = _ordered(found, terms)
    return [names[start : start + terms.group] for start in range(0, len(names), terms.group)]


def _ordered(vms: Sequence[tuple[str, int]], terms: Terms) -> list[str]:
    sign = {Order.GIVEN: 0, Order.SMALLEST: 1, Order.LARGEST: -1}[terms.order]
    place = {name: at for at, name in enumerate(terms.first)}
    return [name for name, ram in sorted(vms, key=lambda vm: (place.get(vm[0], len(place)), sign * vm[1]))]
