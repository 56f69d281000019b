# SPDX-License-Identifier: GPL-2.0-or-later
"""One source for a record's fields: messages, JSON, files that a person writes, and command-line options are
derived from its dataclass.

A field is a text or a number, or a tuple of texts or of records of their own. A protocol message has a field
of the same name for each of them, and so have JSON and files. What a command line calls a field is in the
field's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, cast, get_args, get_type_hints

from multiroot.errors import BadRequestError
from multiroot.toml_files import shortened

T = TypeVar("T")
M = TypeVar("M")

_OPTION, _ELEMENT, _MORE = "option", "element", "more"
_NONE_OF = "no_"  # before a field's name in a message: the list is empty, and not what it usually is

# Types as JSON and files have them, in a person's words.
_KINDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a fraction",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
}


@dataclass(frozen=True)
class Option:
    """How a field is given on a command line; `parse` makes its value of that.

    `default` is what a person would type for the field's default, where that is another thing than its value.
    One that is `multiple` may be given several times, and `parse` gets all that was given. `write` is for a
    number that a person writes as text, such as a size: what `parse` makes the number of.
    """

    flag: str
    help: str
    metavar: str | None = None
    default: str | int | tuple[()] | None = None
    parse: Callable[[Any], Any] = lambda given: given
    write: Callable[[Any], Any] = lambda value: value
    multiple: bool = False

    @property
    def key(self) -> str:
        """As click names the parameter."""
        return self.flag.removeprefix("--").replace("-", "_")


def described(default: Any, option: Option) -> Any:
    """A field that has an option."""
    typed = default if option.default is None else option.default
    return field(default=default, metadata={_OPTION: replace(option, default=typed)})


def listed(
    element: type[Any],
    default: tuple[Any, ...],
    option: Option | None = None,
    more: Option | None = None,
) -> Any:
    """A field that is a tuple of `element`, a dataclass. Its option says all of it; without one, its options
    are those of the element's fields, which mean the first one, and `more` says those that come after it.
    """
    given = {_OPTION: option, _MORE: more}
    return field(
        default=default, metadata={_ELEMENT: element, **{key: each for key, each in given.items() if each}}
    )


def options(record: type[Any]) -> Iterator[Option]:
    """All options that give a record its fields, in their order."""
    for each in fields(record):
        if option := each.metadata.get(_OPTION):
            yield option
        elif element := each.metadata.get(_ELEMENT):
            yield from options(element)
            if more := each.metadata.get(_MORE):
                yield more


def with_options(value: T, given: Mapping[str, Any]) -> T:
    """A record with what the options say that are given; all else stays as it is.

    Those of an element mean the first one of a list, or make one; a list that has an option of its own is
    what that one says.
    """
    changes: dict[str, Any] = {}
    for each in fields(value):  # type: ignore[arg-type]
        option, element = each.metadata.get(_OPTION), each.metadata.get(_ELEMENT)
        if option and option.key in given:
            changes[each.name] = option.parse(given[option.key])
        elif element and any(inner.key in given for inner in options(element)):
            first, *rest = getattr(value, each.name) or (element(),)
            changes[each.name] = (with_options(first, given), *rest)
        more = each.metadata.get(_MORE)
        if more and more.key in given:
            now = changes.get(each.name, getattr(value, each.name))
            changes[each.name] = (*now[:1], *more.parse(given[more.key]))
    return replace(value, **changes)  # type: ignore[type-var]


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
        elif not content and each.default:
            # An empty list is not told from one that was not set.
            _set(message, f"{_NONE_OF}{each.name}", True)
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
    return record(**{each.name: _content(each, message) for each in fields(record)})  # type: ignore[arg-type]


def _content(each: Field[Any], message: Any) -> Any:
    if getattr(message, f"{_NONE_OF}{each.name}", False):
        return ()
    content = getattr(message, each.name)
    if isinstance(content, str | int):
        return content or (each.default if each.default is not MISSING else content)
    if element := each.metadata.get(_ELEMENT):
        return tuple(from_message(item, element) for item in content) or each.default
    return tuple(content) or each.default


def to_data(value: Any) -> dict[str, Any]:
    """A record as JSON can hold it."""
    return asdict(value)


def to_file(value: Any) -> dict[str, Any]:
    """A record as a person would write it in a file."""
    return {each.name: _written(each, getattr(value, each.name)) for each in fields(value)}


def _written(each: Field[Any], content: Any) -> Any:
    if isinstance(content, tuple):
        return [to_file(item) if each.metadata.get(_ELEMENT) else item for item in content]
    option = each.metadata.get(_OPTION)
    return option.write(content) if option else content


def from_data(data: Any, record: type[T]) -> T:
    """A record from what `to_data` made, after JSON; raises BadRequestError, naming the field, for anything
    else.
    """
    return _record(data, record, _Place(by_hand=False))


def from_file(data: Any, record: type[T]) -> T:
    """A record from what a person has written in a file, where a number may be the text that its option
    takes; raises BadRequestError, naming the field, for what makes none.
    """
    return _record(data, record, _Place(by_hand=True))


@dataclass(frozen=True)
class _Place:
    """Where in the data something is, and whether a person wrote that."""

    by_hand: bool
    names: tuple[str, ...] = ()

    def inside(self, name: object) -> _Place:
        return replace(self, names=(*self.names, str(name)))

    def error(self, what: str, hint: str = "") -> BadRequestError:
        return BadRequestError(f"{'.'.join(self.names)}: {what}" if self.names else what, hint)


def _record(data: Any, record: type[T], place: _Place) -> T:
    assert is_dataclass(record)
    if not isinstance(data, Mapping):
        raise place.error(f"{_KINDS[dict]} is needed, not {_kind(data)}")
    hints = get_type_hints(record)
    known = {each.name: each for each in fields(record)}
    if unknown := [name for name in data if name not in known]:
        raise place.inside(unknown[0] or '""').error("no such key", f"there are: {', '.join(known)}")
    for each in known.values():
        if each.name not in data and each.default is MISSING:
            raise place.inside(each.name).error("it is missing")
    return cast(T, record(**{name: _value(known[name], hints[name], data[name], place) for name in data}))


def _value(each: Field[Any], hint: Any, content: Any, place: _Place) -> Any:
    place = place.inside(each.name)
    option = each.metadata.get(_OPTION)
    if place.by_hand and option and hint is int and isinstance(content, str):
        try:
            content = option.parse(content)
        except BadRequestError as error:
            raise place.error(error.message, error.hint) from error
    return _typed(content, hint, place)


def _typed(content: Any, hint: Any, place: _Place) -> Any:
    """`content` as a field of that type has it; raises BadRequestError for another type."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _record(content, hint, place)
    if inner := get_args(hint):
        if not isinstance(content, list):
            raise place.error(f"{_KINDS[list]} is needed, not {_kind(content)}")
        return tuple(_typed(item, inner[0], place.inside(index)) for index, item in enumerate(content))
    if type(content) is not hint:
        raise place.error(f"{_KINDS[hint]} is needed, not {_kind(content)}")
    return content


def _kind(content: Any) -> str:
    return _KINDS.get(type(content), f"a {type(content).__name__}")


def check_given_once(words: Iterable[str], text: str) -> None:
    """Raises BadRequestError for words like NAME=VALUE, or NAME alone, of which two have one name: only the
    last would mean anything.
    """
    seen = set()
    for name in (word.partition("=")[0] for word in words):
        if name in seen:
            raise BadRequestError(f"{name} is given twice: {shortened(text)!r}", f"say {name} once")
        seen.add(name)


def as_text(content: Any) -> str:
    """What `to_data` made of a field, for a person: lists separated by commas, "-" for nothing."""
    if isinstance(content, list | tuple):
        return ", ".join(as_text(item) for item in content) or "-"
    if isinstance(content, dict):
        return " ".join(f"{name} {value}" for name, value in content.items() if value)
    return str(content)
