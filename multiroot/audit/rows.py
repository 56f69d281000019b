# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of global machine state (`qemu-lab/global-state.toml`), and which row an address is in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from multiroot.lab import paths, recipes
from multiroot.lab.recipes import Recipe

FILE = "global-state.toml"
FIRST_MEMORY = 0x1_0000  # addresses below are I/O ports: no device of a PC is in the first 64 KiB of memory


class Phase(StrEnum):
    """Of an update. `both`: two roots live, nothing goes on between them; `after`: the old one is gone."""

    LAUNCH = "launch"
    BOTH = "both"
    HANDOFF = "handoff"
    RETIRE = "retire"
    AFTER = "after"


class Role(StrEnum):
    """A root, as seen from one update."""

    OLD = "old"
    NEW = "new"


class Owner(StrEnum):
    OLD = "old"
    NEW = "new"
    EACH = "each"
    NOBODY = "nobody"


@dataclass(frozen=True, order=True)
class Span:
    """Ports, addresses or register numbers from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.first <= number <= self.last

    def __len__(self) -> int:
        return min(self.last - self.first + 1, (1 << 63) - 1)

    def __str__(self) -> str:
        return f"{self.first:#x}" if self.first == self.last else f"{self.first:#x}-{self.last:#x}"


@dataclass(frozen=True)
class Masked:
    """Some bits of a value."""

    value: int
    mask: int

    def matches(self, number: int) -> bool:
        return number & self.mask == self.value


def _span(text: object) -> object:
    match = re.fullmatch(r"(0x[0-9a-f]+)(?:-(0x[0-9a-f]+))?", text) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"not a range: {text!r}")
    first, last = int(match[1], 16), int(match[2] or match[1], 16)
    if last < first:
        raise ValueError(f"{text} ends before it begins")
    return Span(first, last)


def _masked(text: object) -> object:
    match = re.fullmatch(r"(0x[0-9a-f]+)/(0x[0-9a-f]+)", text) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"not VALUE/MASK: {text!r}")
    value, mask = int(match[1], 16), int(match[2], 16)
    if value & ~mask:
        raise ValueError(f"{text} can match nothing")
    return Masked(value, mask)


Text = Annotated[str, Field(min_length=1)]
SpanText = Annotated[Span, BeforeValidator(_span)]
Number = Annotated[int, BeforeValidator(lambda text: int(str(text), 16))]


class Allow(Recipe):
    """Something a root may do that does not own the row. Without `select` or `value` any will do."""

    root: Role
    phases: tuple[Phase, ...] = Field(min_length=1)
    at: SpanText
    access: Literal["r", "w", "rw"]
    select: SpanText | None = None
    value: Annotated[Masked, BeforeValidator(_masked)] | None = None
    why: Text


class Row(Recipe):
    """One piece of state; the fields are explained at the top of the file."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    name: Text
    at: tuple[SpanText, ...] = ()
    msrs: tuple[SpanText, ...] = ()
    owner: dict[Phase, Owner]
    selector: Number | None = None
    data: SpanText | None = None
    rule: Literal["", "ipi", "msi"] = ""
    takes_over: bool = False
    compare: Literal["", "msrs", "microcode", "acpi", "clock"] = ""
    allow: tuple[Allow, ...] = ()
    passes: Text
    enforced: Text
    trusted: Text
    unseen: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Row:
        if missing := [phase.value for phase in Phase if phase not in self.owner]:
            raise ValueError(f"row {self.id} has no owner in {', '.join(missing)}")
        if (self.selector is None) != (self.data is None):
            raise ValueError(f"row {self.id} has a selector or data without the other")
        if not (self.at or self.msrs or self.compare):
            raise ValueError(f"nothing would be seen of row {self.id}")
        for allow in self.allow:
            if not any(allow.at.first in span and allow.at.last in span for span in self.at):
                raise ValueError(f"row {self.id} allows {allow.at}, which is not in it")
        return self

    def checks(self) -> list[str]:
        """How an audit looks at this row, in words."""
        found = ["memory trace"] if self.at else []
        found += ["MSR trace"] if self.msrs else []
        return [*found, f"comparison ({self.compare})"] if self.compare else found


class Rows(Recipe):
    """All rows, in the order of the file."""

    row: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Rows:
        names = [row.id for row in self.row]
        if len(set(names)) != len(names):
            raise ValueError("two rows have the same id")
        return self

    def by_id(self, name: str) -> Row:
        return next(row for row in self.row if row.id == name)


def load() -> Rows:
    """The rows of the source tree; raises BadRequestError naming the field that is wrong."""
    return recipes.read(paths.recipes_dir() / FILE, Rows)


class Lookup:
    """Finds the row of a number: the one with the narrowest range around it."""

    def __init__(self, ranges: list[tuple[Span, Row]]) -> None:
        self._ranges = sorted(ranges, key=lambda item: len(item[0]))
        self._known: dict[int, Row | None] = {}

    def __call__(self, number: int) -> Row | None:
        if number not in self._known:
            self._known[number] = next((row for span, row in self._ranges if number in span), None)
        return self._known[number]


def lookup_at(rows: Rows) -> Lookup:
    """Rows by port or physical address."""
    return Lookup([(span, row) for row in rows.row for span in row.at])


def lookup_msr(rows: Rows) -> Lookup:
    """Rows by MSR."""
    return Lookup([(span, row) for row in rows.row for span in row.msrs])
