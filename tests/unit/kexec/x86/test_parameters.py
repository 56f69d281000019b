# SPDX-License-Identifier: GPL-2.0-or-later
"""A command line is read as the kernel reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.kexec.x86.parameters import Parameter, join, split

SPACES = " \t\n\v\f\r"


def next_arg(text: str) -> tuple[str, str | None, str]:
    """lib/cmdline.c: next_arg(), character by character: name, value, the rest."""
    args, quoted, in_quote = text, False, False
    if args.startswith('"'):
        args, quoted, in_quote = args[1:], True, True
    equals, end = 0, len(args)
    for i, letter in enumerate(args):
        if letter in SPACES and not in_quote:
            end = i
            break
        if equals == 0 and letter == "=":
            equals = i
        if letter == '"':
            in_quote = not in_quote
    memory = [*args[:end], "\0"]
    start = 0
    if equals:
        memory[equals] = "\0"
        start = equals + 1
        if memory[start] == '"':
            start += 1
            if memory[end - 1] == '"':
                memory[end - 1] = "\0"
    if quoted and end > 0 and memory[end - 1] == '"':
        memory[end - 1] = "\0"

    def string(at: int) -> str:
        return "".join(memory[at:]).partition("\0")[0]

    return string(0), string(start) if equals else None, args[end:].lstrip(SPACES)


def kernel_reads(line: str) -> list[tuple[str, str | None]]:
    """kernel/params.c: parse_args()."""
    found: list[tuple[str, str | None]] = []
    rest = line.lstrip(SPACES)
    while rest:
        name, value, rest = next_arg(rest)
        if value is None and name == "--":
            break
        found.append((name, value))
    return found


@given(st.text('ab"=-_ \t', max_size=24).filter(lambda line: line.count('"') % 2 == 0))
def test_any_line_is_read_as_the_kernel_reads_it(line: str) -> None:
    parameters, _ = split(line)
    assert [(each.name, each.value) for each in parameters] == kernel_reads(line)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("quiet foo= foo=bar", [("quiet", None), ("foo", ""), ("foo", "bar")]),
        ('"noapic"', [("noapic", None)]),
        ('foo="a b" "foo=a b"', [("foo", "a b"), ("foo", "a b")]),
        ('dyndbg="file a +p; file b +p" x', [("dyndbg", "file a +p; file b +p"), ("x", None)]),
        ("a=b=c", [("a", "b=c")]),
        ("root=x -- single noapic", [("root", "x")]),
        ('root=x "--" single', [("root", "x")]),
        ("a --=b c", [("a", None), ("--", "b"), ("c", None)]),
        ("", []),
    ],
)
def test_examples(line: str, found: list[tuple[str, str | None]]) -> None:
    parameters, _ = split(line)
    assert [(each.name, each.value) for each in parameters] == found


def test_what_init_gets_is_kept_apart() -> None:
    parameters, for_init = split('quiet -- single "a b"')
    assert parameters == (Parameter("quiet", None, "quiet"),)
    assert for_init == ("single", '"a b"')
    assert join(parameters, for_init) == 'quiet -- single "a b"'


def test_names_are_compared_without_regard_to_dashes() -> None:
    assert split("no-ipi-broadcast=0")[0][0].key == split("no_ipi_broadcast=0")[0][0].key


@pytest.mark.parametrize("line", ['foo="a b', '"', 'a"b c'])
def test_an_open_quote_is_refused(line: str) -> None:
    with pytest.raises(BadRequestError, match="a quote is not closed"):
        split(line)
