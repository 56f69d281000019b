# SPDX-License-Identifier: GPL-2.0-or-later
"""What pydantic finds wrong with a person's file, in plain English. Of what is not named here, its own words
are told.
"""

from __future__ import annotations

from pydantic import ValidationError

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no key here",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be as in {pattern}",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "literal_error": "must be {expected}",
}


def first(error: ValidationError) -> tuple[tuple[int | str, ...], str, str]:
    """Where the first thing is that is wrong, pydantic's name of it, and a line that tells it."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    kind, context = found["type"], found.get("ctx", {})
    if kind in _WORDS:
        return found["loc"], kind, f"{where or 'it'} {_WORDS[kind].format(**context)}"
    own = found["msg"].removeprefix("Value error, ")
    return found["loc"], kind, f"{where}: {own}" if where else own
