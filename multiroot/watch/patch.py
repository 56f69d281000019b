# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON merge patches (RFC 7386): what has changed between two documents, and the change applied. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def difference(before: Json, after: Json) -> Json:
    """The patch that makes `after` of `before`; {} if they are equal.

    A None in `after` cannot be told from a field that is not there, as RFC 7386 has it: both become absent.
    """
    patch: Json = {name: None for name in before if after.get(name) is None and before[name] is not None}
    for name, value in after.items():
        old = before.get(name)
        if value is None or _equal(old, value):
            continue
        patch[name] = difference(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return patch


def applied(document: Json, patch: Json) -> Json:
    """The document with the patch applied. The old one stays as it was; the two share what is the same."""
    result = dict(document)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            old = result.get(name)
            result[name] = applied(old if isinstance(old, dict) else {}, value)
        else:
            result[name] = value
    return result


def _equal(old: object, new: object) -> bool:
    # 1 == True == 1.0 in Python, and not in JSON.
    return type(old) is type(new) and old == new
