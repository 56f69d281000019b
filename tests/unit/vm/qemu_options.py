# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the value of an option as QEMU does (util/qemu-option.c)."""

from __future__ import annotations


def parse(text: str) -> list[tuple[str, str]]:
    """Names and values; what has no name is the kind, under the name ""."""
    found: list[tuple[str, str]] = []
    while text:
        equals, comma = text.find("="), text.find(",")
        named = equals >= 0 and (comma < 0 or equals < comma)
        name, rest = (text[:equals], text[equals + 1 :]) if named else ("", text)
        value = ""
        while rest:
            if rest.startswith(",,"):
                value, rest = value + ",", rest[2:]
            elif rest.startswith(","):
                break
            else:
                value, rest = value + rest[0], rest[1:]
        found.append((name, value))
        text = rest[1:]
    return found
