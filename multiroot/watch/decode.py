# SPDX-License-Identifier: GPL-2.0-or-later
"""`Facts` as a JSON document and back."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from multiroot.errors import BadRequestError
from multiroot.watch.facts import VERSION, Facts

T = TypeVar("T")

_NUMBER = re.compile("[0-9]{1,9}")
_MOST = (1 << 64) - 1
_PLAIN = (str, int, bool, float)


def to_json(facts: Facts) -> dict[str, Any]:
    """The document; a field that is None is absent, as a merge patch can't say None."""
    document: dict[str, Any] = _plain(facts)
    return document


def from_json(document: dict[str, Any]) -> Facts:
    """The facts in a document. What it lacks has its default, what is not known here is ignored.

    Raises BadRequestError, which names the field, for a value of the wrong kind or a newer version.
    """
    facts = part(Facts, document)
    for name in (*facts.roots, *facts.cpus):
        if not _NUMBER.fullmatch(name):
            raise BadRequestError(f"facts can't have a root or CPU called {name[:80]!r}")
    if facts.version > VERSION:
        raise BadRequestError(
            f"the facts are of version {facts.version}, not {VERSION}", "use a newer multiroot"
        )
    return facts


def part(kind: type[T], value: object, where: str = "facts") -> T:
    """One of the facts' dataclasses; raises BadRequestError, which names the field below `where`."""
    made: T = _made(kind, value, where)
    return made


def _plain(value: Any) -> Any:
    # An agent does this twice a second for whoever watches: dataclasses.asdict takes four times as long.
    kind: type = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_plain(each) for each in value]
    if kind is dict:
        return {name: _plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, StrEnum):
        return value.value
    found = ((name, getattr(value, name)) for name in _names(kind))
    return {name: _plain(each) for name, each in found if each is not None}


@cache
def _names(kind: type) -> tuple[str, ...]:
    """Of a dataclass's fields."""
    return tuple(each.name for each in fields(kind))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _made(kind: Any, value: object, where: str) -> Any:
    """`value` as what a field's type says."""
    if get_origin(kind) is UnionType:
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, where)
    if get_origin(kind) is dict and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {str(name): _made(inner, each, f"{where}.{name}") for name, each in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        inner = get_args(kind)[0]
        return [_made(inner, each, f"{where}[{index}]") for index, each in enumerate(value)]
    if (
        isinstance(kind, type)
        and issubclass(kind, StrEnum)
        and isinstance(value, str)
        and value in list(kind)
    ):
        return kind(value)
    # A bool is an int to Python.
    if kind in (str, bool) and type(value) is kind:
        return value
    if kind is int and type(value) is int and (0 if not where.endswith("_ns") else -_MOST) <= value <= _MOST:
        return value
    shown = repr(value)
    raise BadRequestError(f"{where} can't be {shown if len(shown) <= 80 else shown[:80] + '...'}")


def _record(kind: type, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise BadRequestError(f"{where} is no object")
    hints = _hints(kind)
    given = {each.name: value[each.name] for each in fields(kind) if value.get(each.name) is not None}
    return kind(**{name: _made(hints[name], each, f"{where}.{name}") for name, each in given.items()})
