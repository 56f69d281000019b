# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and CPU lists: whatever a person types is understood or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.units import (
    GIB,
    KIB,
    MIB,
    TIB,
    format_cpu_list,
    format_size,
    parse_count,
    parse_cpu_list,
    parse_size,
    rough_size,
    typed_size,
)

# Text near what is valid, beside any text at all.
SIZE_LIKE = st.from_regex(r"\s*(0x)?[0-9a-f]{0,40}\s*[KMGTkmgt\u212a\u0131]?i?B?\s*", fullmatch=True)
CPUS_LIKE = st.text("0123456789,- \u0663x", max_size=30)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256M", 256 * MIB),
        ("256MiB", 256 * MIB),
        ("256 MiB", 256 * MIB),
        ("1g", GIB),
        ("2T", 2048 * GIB),
        ("4KB", 4 * KIB),
        ("513", 513),
        ("513 B", 513),
        ("0x1000", 4096),
        ("0X118000000", 0x1_1800_0000),
        (" 1G\n", GIB),
        ("16777215T", 16777215 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "like 256M"),
        ("lots", "like 256M"),
        ("-1G", "like 256M"),
        ("1.5G", "like 256M"),
        ("1P", "like 256M"),
        ("256\u212a", "like 256M"),  # a Kelvin sign, a K only to those who ignore case
        ("\u0663M", "like 256M"),
        ("9" * 5000, "like 256M"),
        ("0", "greater than zero"),
        ("0x0G", "greater than zero"),
        ("010M", "leading zero"),
        ("00", "leading zero"),
        ("16777216T", "less than 2^64"),
    ],
)
def test_refused_sizes(text: str, hint: str) -> None:
    with pytest.raises(BadRequestError, match="not a size") as caught:
        parse_size(text)
    assert hint in caught.value.hint


@given(st.text() | SIZE_LIKE)
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except BadRequestError:
        return
    assert 0 < size < 1 << 64


@given(st.integers(1, (1 << 64) - 1) | st.integers(1, 1 << 20).map(lambda n: n * MIB))
def test_written_sizes_are_read_again(size: int) -> None:
    assert parse_size(format_size(size)) == size
    assert parse_size(typed_size(size)) == size
    assert " " not in typed_size(size)
    assert parse_size(hex(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (513, "513 B"),
        (4 * KIB, "4 KiB"),
        (1536 * MIB, "1536 MiB"),
        (2 * GIB, "2 GiB"),
        (3 * TIB, "3 TiB"),
    ],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


def test_a_rough_size_is_short_and_errs_to_one_side() -> None:
    size = 10_489_088 * MIB
    assert (rough_size(size), rough_size(size, up=True)) == ("10.0 TiB", "10.1 TiB")
    assert (rough_size(18_242 * MIB), rough_size(512)) == ("17.8 GiB", "512 B")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("3", (3,)), ("2-3,6", (2, 3, 6)), ("6, 2-3 ,3\n", (2, 3, 6)), ("8190-8191", (8190, 8191))],
)
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    "text", ["x", "-1", "1-", "3-2", "8192", "0-99999999999999999999", "1 2", "\u0663", "9" * 5000, "0x1"]
)
def test_refused_cpu_lists(text: str) -> None:
    with pytest.raises(BadRequestError, match="not a CPU list"):
        parse_cpu_list(text)


@given(st.text() | CPUS_LIKE)
def test_any_text_is_a_cpu_list_or_refused(text: str) -> None:
    try:
        cpus = parse_cpu_list(text)
    except BadRequestError:
        return
    assert list(cpus) == sorted(set(cpus))
    assert all(0 <= cpu < 8192 for cpu in cpus)


@given(st.lists(st.integers(0, 8191)))
def test_written_cpu_lists_are_read_again(cpus: list[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == tuple(sorted(set(cpus)))


def test_format_cpu_list() -> None:
    assert format_cpu_list((6, 2, 3, 3)) == "2-3,6"
    assert format_cpu_list([]) == ""


@given(st.text() | st.text("0123456789 -\u0663", min_size=1, max_size=14))
def test_any_text_is_a_count_or_refused(text: str) -> None:
    try:
        count = parse_count(text, most=16)
    except BadRequestError:
        return
    assert 1 <= count <= 16


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "17", "\u0663", "9" * 5000, "1 2"])
def test_refused_counts(text: str) -> None:
    with pytest.raises(BadRequestError, match="not a number"):
        parse_count(text, most=16)


def test_what_is_wrong_with_a_cpu_list_is_said() -> None:
    wrong = (("0-999999999999", "less than 8192"), ("99999", "less than 8192"), ("6-2", "ends before"))
    for text, says in wrong:
        with pytest.raises(BadRequestError, match="not a CPU list") as refused:
            parse_cpu_list(text)
        assert says in refused.value.hint
