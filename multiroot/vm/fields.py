# SPDX-License-Identifier: GPL-2.0-or-later
"""One source for a record's fields: messages, JSON and command-line options are derived from its dataclass.

A field is a text or a number, or a tuple of texts or of records of their own. A protocol message has a field
of the same name for each of them. What a command line calls a field is in the field's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_type_hints

from multiroot.errors import BadRequestError

T = TypeVar("T")
M = TypeVar("M")

_OPTION, _ELEMENT = "option", "element"


@dataclass(frozen=True)
class Option:
    """How a field is given on a command line; `parse` makes its value of that.

    `default` is what a person would type for the field's default, where that is another thing than its value.
    """

    flag: str
    help: str
    metavar: str | None = None
    default: str | int | None = None
    parse: Callable[[Any], Any] = lambda given: given

    @property
    def key(self) -> str:
        """As click names the parameter."""
        return self.flag.removeprefix("--").replace("-", "_")


def described(default: Any, option: Option) -> Any:
    """A field that has an option."""
    typed = default if option.default is None else option.default
    return field(default=default, metadata={_OPTION: replace(option, default=typed)})


def listed(element: type[Any], default: tuple[Any, ...]) -> Any:
    """A field that is a tuple of `element`, a dataclass; its options are those of the element's fields."""
    return field(default=default, metadata={_ELEMENT: element})


def options(record: type[Any]) -> Iterator[Option]:
    """All options that give a record its fields, in their order."""
    for each in fields(record):
        if option := each.metadata.get(_OPTION):
            yield option
        elif element := each.metadata.get(_ELEMENT):
            yield from options(element)


def from_options(record: type[T], given: Mapping[str, Any], **known: Any) -> T:
    """A record from the parameters of its options, and fields that are known otherwise.

    A list gets one element: that is all that options can say so far.
    """
    values = dict(known)
    for each in fields(record):  # type: ignore[arg-type]
        if option := each.metadata.get(_OPTION):
            values[each.name] = option.parse(given[option.key])
        elif element := each.metadata.get(_ELEMENT):
            values[each.name] = (from_options(element, given),)
    return record(**values)


def to_message(value: Any, kind: type[M]) -> M:
    """A record as a protocol message; BadRequestError for a value that none can hold, ValueError if the
    message lacks one of its fields.
    """
    message = kind()
    described: Any = kind
    known = described.DESCRIPTOR.fields_by_name
    for each in fields(value):
        content = getattr(value, each.name)
        if each.name not in known:
            raise ValueError(f"{kind.__name__} has no field {each.name}")
        if not isinstance(content, tuple):
            _set(message, each.name, content)
        elif each.metadata.get(_ELEMENT):
            for item in content:
                added = getattr(message, each.name).add()
                added.CopyFrom(to_message(item, type(added)))
        else:
            getattr(message, each.name).extend(content)
    return message


def _set(message: Any, name: str, content: Any) -> None:
    try:
        setattr(message, name, content)
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{name.replace('_', ' ')} cannot be {content}") from error


def from_message(message: Any, record: type[T]) -> T:
    """The record in a protocol message; fields that are not set have their defaults."""
    values = {each.name: _content(each, getattr(message, each.name)) for each in fields(record)}  # type: ignore[arg-type]
    return record(**values)


def _content(each: Field[Any], content: Any) -> Any:
    if isinstance(content, str | int):
        return content or (each.default if each.default is not MISSING else content)
    if element := each.metadata.get(_ELEMENT):
        return tuple(from_message(item, element) for item in content) or each.default
    return tuple(content) or each.default


def to_data(value: Any) -> dict[str, Any]:
    """A record as JSON can hold it."""
    return asdict(value)


def from_data(data: Mapping[str, Any], record: type[T]) -> T:
    """A record from what `to_data` made, after JSON; raises BadRequestError for anything else."""
    assert is_dataclass(record)
    hints = get_type_hints(record)
    if not isinstance(data, Mapping) or (unknown := set(data) - set(hints)):
        what = ", ".join(sorted(unknown)) if isinstance(data, Mapping) else repr(data)
        raise BadRequestError(f"{record.__name__} has no field {what}")
    try:
        return record(**{name: _typed(content, hints[name]) for name, content in data.items()})
    except TypeError as error:
        raise BadRequestError(f"not a {record.__name__}: {error}") from error


def _typed(content: Any, hint: Any) -> Any:
    """`content` as a field of that type has it; raises TypeError for another type."""
    if is_dataclass(hint) and isinstance(hint, type):
        return from_data(content, hint)
    if inner := get_args(hint):
        if not isinstance(content, list):
            raise TypeError(f"{content!r} is no list")
        return tuple(_typed(item, inner[0]) for item in content)
    if type(content) is not hint:
        raise TypeError(f"{content!r} is not of type {hint.__name__}")
    return content


def as_text(content: Any) -> str:
    """What `to_data` made of a field, for a person: lists separated by commas, "-" for nothing."""
    if isinstance(content, list | tuple):
        return ", ".join(as_text(item) for item in content) or "-"
    if isinstance(content, dict):
        return " ".join(f"{name} {value}" for name, value in content.items() if value)
    return str(content)
