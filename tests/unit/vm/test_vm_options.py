# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of options arrive in QEMU as they are."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from vm.qemu_options import parse

from multiroot.vm.qemu.options import option

NAMES = st.text("abc-.", min_size=1)


@given(st.dictionaries(NAMES, st.text("a,=\u00e9 ") | st.integers() | st.booleans()))
def test_any_value_is_read_as_it_was_meant(values: dict[str, str | int | bool]) -> None:
    written = {True: "on", False: "off"}
    said = [(name, written[v] if isinstance(v, bool) else str(v)) for name, v in values.items()]
    assert parse(option("kind", values)) == [("", "kind"), *said]


def test_examples() -> None:
    assert option("socket", {"path": Path("/a,b"), "wait": False}) == "socket,path=/a,,b,wait=off"
    assert option("", {"if": "none", "fd": 5}) == "if=none,fd=5"
    assert option("user", {"hostfwd": ("a", "b")}) == "user,hostfwd=a,hostfwd=b"
