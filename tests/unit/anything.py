# SPDX-License-Identifier: GPL-2.0-or-later
"""Strategies for tests in which whoever sends something may send anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from multiroot.errors import MultirootError

T = TypeVar("T")

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)


def json_with(*names: str) -> st.SearchStrategy[Any]:
    """Any JSON; the keys of its objects are often among `names`."""
    keys = st.sampled_from(names) | st.text(max_size=4) if names else st.text(max_size=4)
    return st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6),
        max_leaves=12,
    )


def spoiled(good: Any, names: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """JSON like `good`, with one thing in it left out or replaced by anything."""
    return st.sampled_from(list(_places(good))).flatmap(
        lambda place: (json_with(*names) | st.just(_GONE)).map(lambda new: _replaced(good, place, new))
    )


_GONE = object()
_Place = tuple[Any, ...]


def _places(value: Any) -> list[_Place]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *place) for key, below in inner for place in _places(below))]


def _replaced(value: Any, place: _Place, new: Any) -> Any:
    if not place:
        return None if new is _GONE else new
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    key, *rest = place
    made = [
        (name, _replaced(below, tuple(rest), new) if name == key else below)
        for name, below in items
        if name != key or rest or new is not _GONE
    ]
    return dict(made) if isinstance(value, dict) else [below for _, below in made]


def made_or_refused(make: Callable[[], T]) -> T | MultirootError:
    """What `make` returns, or the error that it refuses with."""
    try:
        return make()
    except MultirootError as error:
        return error
