# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace's bytes become accesses, and marks fall between the right ones, however the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.audit.tap import Stream
from multiroot.audit.trace import TraceError

LINES = [f"memory_region_ops_read cpu 0 mr 0x1 addr {n:#x} value 0x0 size 1 name 'x'\n" for n in range(5)]
TEXT = "".join([*LINES[:2], "a word of another kind\n", *LINES[2:]]).encode()


@given(st.lists(st.integers(0, len(TEXT)), max_size=8).map(sorted))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    seen: list[int] = []
    stream = Stream(lambda access: seen.append(access.at))
    for start, end in zip([0, *cuts], [*cuts, len(TEXT)], strict=True):
        stream.feed(TEXT[start:end])
    assert seen == [0, 1, 2, 3, 4]
    assert stream.received == len(TEXT)


@given(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))
def test_a_mark_comes_after_the_lines_that_end_before_it(at: int, cut: int) -> None:
    seen: list[object] = []
    stream = Stream(lambda access: seen.append(access.at))
    stream.feed(TEXT[: min(cut, at)])
    stream.mark(at, lambda: seen.append("mark"))
    stream.feed(TEXT[min(cut, at) :])
    stream.feed(b"\n")
    before = TEXT[:at].rpartition(b"\n")[0].count(b"addr")
    assert seen.index("mark") == before
    assert [item for item in seen if item != "mark"] == [0, 1, 2, 3, 4]


def test_a_mark_for_what_is_past_comes_at_once() -> None:
    seen: list[str] = []
    stream = Stream(lambda _: None)
    stream.feed(TEXT)
    stream.mark(len(TEXT), lambda: seen.append("mark"))
    assert seen == ["mark"]


def test_a_line_that_cannot_be_read_is_not_passed_over() -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        Stream(lambda _: None).feed(b"memory_region_ops_read cpu nonsense\n")
