# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core/main.c: where the module does not begin, and what is left when a part does not work."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import compiled, loaded

EPERM, ENODEV, E2BIG = -1, -19, -7
LEDGER = ("new-ledger", "park-code", "published")
PARTS = ["APIC", "ledger", "parking", "doorbell", "ftrace", "containment", "vetoes", "online-veto"]
PARTS += ["memory-veto", "host-bridge", "console", "device", "parent"]
LATER = 0x2000_0000  # where a later root shares memory with its parent


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("main"), "main.h", "main_glue.c", "core/main.c")


@pytest.fixture
def root(module: Path, tmp_path: Path) -> ctypes.CDLL:
    return loaded(module, tmp_path)


def later(root: ctypes.CDLL) -> None:
    """The root is not the first."""
    ctypes.POINTER(ctypes.c_ulong).in_dll(root, "parameter_shared")[0] = LATER


def done(root: ctypes.CDLL) -> list[str]:
    return (ctypes.c_char * 1024).in_dll(root, "done").value.decode().split()


def said(root: ctypes.CDLL) -> list[str]:
    lines = ctypes.c_int.in_dll(root, "lines").value
    return [
        bytes(line).partition(b"\0")[0].decode() for line in (ctypes.c_char * 160 * 4).in_dll(root, "said")
    ][:lines]


def begins(parts: list[str]) -> list[str]:
    """In a later root; the bridge is not there before somebody asks for a device."""
    return [part for part in parts if part != "host-bridge"]


def ends(parts: list[str]) -> list[str]:
    """From the last to the first."""
    words = [f"-{part}" for part in reversed(parts)]
    at = words.index("-host-bridge") + 1 if "host-bridge" in parts else len(words)
    return [*words[:at], *(["-ecam"] if at < len(words) else []), *words[at:]]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("crash_kernel", "this is a crash kernel: the machine's roots are none of its business\n"),
        ("locked_down", "this kernel is locked down: it may not start others\n"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_kernel_that_may_not_is_refused_in_a_line_and_nothing_begins(
    root: ctypes.CDLL, what: str, line: str, first: bool
) -> None:
    if not first:
        later(root)
    ctypes.c_bool.in_dll(root, what).value = True
    assert root.begin() == EPERM
    assert (said(root), done(root)) == ([line], [])
    assert ctypes.c_int.in_dll(root, "holds").value == 0


def test_where_the_machine_can_not_have_several_roots_nothing_begins(root: ctypes.CDLL) -> None:
    ctypes.c_int.in_dll(root, "host_says").value = E2BIG
    assert root.begin() == E2BIG
    assert done(root) == []


def test_the_first_root_makes_the_ledger_with_the_park_in_it_before_anything_needs_it(
    root: ctypes.CDLL,
) -> None:
    assert root.begin() == 0
    assert done(root) == ["APIC", *LEDGER, *begins(PARTS[2:-1])]
    assert ctypes.c_int.in_dll(root, "holds").value == 0


def test_a_later_root_joins_the_ledger_and_can_not_be_left(root: ctypes.CDLL) -> None:
    later(root)
    assert root.begin() == 0
    assert done(root) == begins(PARTS)
    assert ctypes.c_int.in_dll(root, "holds").value == 1


def test_what_began_last_ends_first(root: ctypes.CDLL) -> None:
    later(root)
    assert root.begin() == 0
    root.end()
    assert done(root) == begins(PARTS) + ends(PARTS)


@pytest.mark.parametrize("part", begins(PARTS))
def test_when_a_part_does_not_work_those_before_it_are_undone(root: ctypes.CDLL, part: str) -> None:
    """And it is named; it undoes itself."""
    later(root)
    ctypes.c_char_p.in_dll(root, "fails").value = part.encode()
    assert root.begin() == ENODEV
    before = PARTS[: PARTS.index(part)]
    assert done(root) == begins(before) + ends(before)
    assert said(root) == [f"{part.replace('-', ' ')} does not work here ({ENODEV})\n"]
    assert ctypes.c_int.in_dll(root, "holds").value == 0
