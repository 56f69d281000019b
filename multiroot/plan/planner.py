# SPDX-License-Identifier: GPL-2.0-or-later
"""Inventory + request -> plan, or an error that names the conflict and the nearest request that works."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from multiroot import arch
from multiroot.errors import BadRequestError
from multiroot.kexec.boot import SHARED_OFFSET
from multiroot.plan import cpus, memory
from multiroot.plan.inventory import Inventory
from multiroot.plan.memory import Way
from multiroot.plan.refusal import Refusal
from multiroot.plan.request import PlanConflictError, PlanError, PlanRequestError, Request
from multiroot.ranges import Range

_MOST_MENDS = 8  # a request has fewer parts than that, and every mend settles one of them


@dataclass(frozen=True)
class PlannedCpu:
    """`number` is the logical number in the old root."""

    number: int
    hardware_id: int


@dataclass(frozen=True)
class Plan:
    """Who gets what: the new root starts on `cpus[0]`; `blocks` are offlined for the carve."""

    cpus: tuple[PlannedCpu, ...]
    carve: Range
    way: Way
    blocks: tuple[int, ...]
    low: Range
    pmem: tuple[Range, ...]

    @property
    def shared(self) -> int:
        """Physical address of the shared area."""
        return self.carve.base + SHARED_OFFSET

    @property
    def alignment(self) -> int:
        """The largest page size, in bytes, that maps the carve whole."""
        sizes = arch.current().memory.page_sizes
        fitting = [size for size in sizes if self.carve.base % size == self.carve.size % size == 0]
        if not fitting:
            raise ValueError(f"the carve {self.carve} is not made of whole pages")
        return max(fitting)

    @property
    def hardware_ids(self) -> tuple[int, ...]:
        return tuple(cpu.hardware_id for cpu in self.cpus)

    def to_dict(self) -> dict[str, Any]:
        """Only what JSON knows; `from_dict` is the inverse."""
        data = asdict(self)
        return {**data, "way": self.way.value, "shared": self.shared, "alignment": self.alignment}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """BadRequestError when `data` is not what `to_dict` made."""
        try:
            made = cls(
                cpus=tuple(PlannedCpu(**_whole(cpu)) for cpu in data["cpus"]),
                carve=Range(**_whole(data["carve"])),
                way=Way(data["way"]),
                blocks=tuple(int(block) for block in data["blocks"]),
                low=Range(**_whole(data["low"])),
                pmem=tuple(Range(**_whole(item)) for item in data["pmem"]),
            )
            if not made.cpus:
                raise ValueError("no CPU")
            made.to_dict()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadRequestError(f"not a plan: {error}") from error
        return made

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """BadRequestError for anything but the text of a plan."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"not a plan: {error}") from error
        if not isinstance(data, dict):
            raise BadRequestError("not a plan: no object")
        return cls.from_dict(data)


def _whole(data: dict[str, Any]) -> dict[str, int]:
    """The same; raises ValueError for what is no whole number that a CPU or an address can have."""
    for name, value in data.items():
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise ValueError(f"{name} can't be {value!r:.80}")
    return data


def plan(inventory: Inventory, request: Request) -> Plan:
    """Plan a new root.

    Raises PlanRequestError (a BadRequestError) for requests that make no sense and PlanConflictError
    (a ConflictError) when something is in the way; both carry the nearest request that works.
    """
    try:
        return _plan(inventory, request)
    except Refusal as refusal:
        raise _error(inventory, refusal) from refusal


def _plan(inventory: Inventory, request: Request) -> Plan:
    chosen = cpus.choose(inventory, request)
    carve = memory.choose_carve(inventory, request)
    return Plan(
        cpus=tuple(PlannedCpu(cpu.number, cpu.hardware_id) for cpu in chosen if cpu.hardware_id is not None),
        carve=carve.range,
        way=carve.way,
        blocks=carve.blocks,
        low=memory.choose_low_window(inventory, request),
        pmem=memory.choose_pmem(inventory, request),
    )


def _error(inventory: Inventory, refusal: Refusal) -> PlanError:
    nearest = _nearest(inventory, refusal)
    hints = [refusal.hint] if refusal.hint else []
    if nearest:
        hints.append(f"this works: {nearest.describe()}")
    kind = PlanConflictError if refusal.conflict else PlanRequestError
    return kind(refusal.message, "; ".join(hints), nearest)


def _nearest(inventory: Inventory, refusal: Refusal) -> Request | None:
    """Mend one part after the other until there is a plan; None when that leads nowhere."""
    candidate = refusal.mended
    for _ in range(_MOST_MENDS):
        if candidate is None:
            return None
        try:
            _plan(inventory, candidate)
        except Refusal as another:
            candidate = another.mended
        else:
            return candidate
    return None
