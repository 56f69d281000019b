# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU reads the value of an option: "socket,id=qmp,fd=5", with every comma of a value doubled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

Value = str | int | bool | Path


def option(kind: str, values: Mapping[str, Value | tuple[Value, ...]]) -> str:
    """`kind` and "name=value" for each of `values`, separated by commas.

    `kind` is what stands in front: a driver, a type, "" for nothing. True and False are written on and off. A
    name with several values is written once for each.
    """
    words = [_escaped(kind)] if kind else []
    for name, value in values.items():
        several = value if isinstance(value, tuple) else (value,)
        words += [f"{name}={_escaped(_text(each))}" for each in several]
    return ",".join(words)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return os.fspath(value) if isinstance(value, Path) else str(value)


def _escaped(text: str) -> str:
    return text.replace(",", ",,")
