# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports are found in consoles' text, with who, when, where, and the lines around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_samples import BANNER, INNOCENT, KASAN, LOCKDEP, NEW_WARNING, ONE_LINE, OOPS, RCU, WARNING

from multiroot.verdict.findings import LAST, Finding, Source, boots, find, of_taint
from multiroot.verdict.lines import parse
from multiroot.verdict.signs import Kind, kind_of


def kinds(text: str) -> list[str]:
    return [str(each.kind) for each in find(text.splitlines(), "old")]


def test_a_warning_is_told_in_full() -> None:
    (one,) = find([BANNER, *WARNING.splitlines()], "new")
    assert (one.kind, one.source) == (Kind.WARNING, Source("new", "6.12.1-mine", 1))
    assert (one.seconds, one.task, one.code) == (12.5001, "frobber[77]", "frob_pages+0x1a/0x90")
    assert one.report[-1].startswith("---[ end trace")
    assert one.before[-1] == "------------[ cut here ]------------"
    assert one.taints == ("O (OOT_MODULE)", "E (UNSIGNED_MODULE)")
    assert "frob_ioctl+0x30/0x60 [frob]" in one.frames
    assert one.headline.startswith("warning in new (6.12.1-mine) at 12.500100 s: WARNING: CPU: 1")


def test_newer_kernels_put_it_on_one_line() -> None:
    (one,) = find([NEW_WARNING], "old", "6.19.0")
    assert (one.kind, one.code, one.source.release) == (Kind.WARNING, "frob_pages+0x1a/0x90", "6.19.0")


def test_an_oops_that_ends_in_a_panic_is_both() -> None:
    assert kinds(OOPS) == ["oops", "panic"]


def test_one_event_is_one_finding() -> None:
    assert kinds(RCU) == ["rcu stall"]
    assert kinds(KASAN) == ["kasan"]
    assert kinds(LOCKDEP) == ["lockdep"]
    assert kinds(KASAN + LOCKDEP + RCU) == ["kasan", "lockdep", "rcu stall"]


def test_the_place_of_a_module_names_it() -> None:
    (one,) = find(KASAN.splitlines(), "old")
    assert one.code == "frob_free+0x40/0x80 [frob]"
    assert one.taints == ("B (BAD_PAGE)",)


@pytest.mark.parametrize(("line", "kind"), ONE_LINE.items())
def test_first_lines(line: str, kind: str) -> None:
    assert kinds(line) == [kind]
    # The recorder's stamp, a level, and who printed it change nothing.
    bare = parse(line).text
    assert kinds(f"123456789012 <4>[   99.123456][    C1] {bare}") == [kind]


@pytest.mark.parametrize("line", INNOCENT)
def test_what_is_no_trouble(line: str) -> None:
    assert kinds(line) == []


def test_a_shell_on_the_console_hides_nothing() -> None:
    (one,) = find(
        ["78853246903616 \x1b[?2004hroot@root-1:~# [   21.513379] WARNING: CPU: 0 PID: 1 at a.c:1 b+0x1/0x2"],
        "old",
    )
    assert (one.seconds, one.kind) == (21.513379, Kind.WARNING)


def test_each_kernel_on_a_console_has_its_own() -> None:
    again = BANNER.replace("6.12.1-mine", "7.0.0")
    text = [BANNER, "[ 1.000000] WARNING: one", BANNER, again, "[ 1.000000] WARNING: two"]
    assert [each.source for each in find(text, "new")] == [
        Source("new", "6.12.1-mine", 1),
        Source("new", "7.0.0", 3),
    ]


def test_what_comes_after_a_pause_is_another_event() -> None:
    stall = "[ {}.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"
    assert len(find([stall.format(60), stall.format(123)], "old")) == 2


def test_the_last_lines_are_kept_but_not_all() -> None:
    before = [f"[    1.{n:06}] line {n}" for n in range(100)]
    (one,) = find([*before, "[    1.500000] WARNING: here"], "old")
    assert len(one.last) == LAST
    assert one.last[-2:] == ("line 99", "WARNING: here")


def test_a_taint_that_no_report_explains_is_a_finding() -> None:
    warned = find(WARNING.splitlines(), "old")
    oot, warn = 1 << 12, 1 << 9
    assert of_taint(oot, {"multiroot": "OE"}, Source("old"), []) == []
    assert of_taint(oot | warn, {}, Source("old"), warned) == []
    (one,) = of_taint(oot | warn, {}, Source("new"), warned)
    assert (one.kind, one.taints) == (Kind.TAINT, ("W (WARN)",))
    # What a kernel said that was there before explains nothing of this one.
    assert len(of_taint(warn, {}, Source("old", boot=2), warned)) == 1


def test_kernels_are_counted_as_findings_count_them() -> None:
    banner, warning = "[ 0.000000] Linux version 6.{}.0", "[ 5.000000] WARNING: here"
    lines: list[str] = []
    assert boots(lines) == 0
    for number in (1, 2):
        lines += [banner.format(number), warning]
        assert boots(lines) == find(lines, "old")[-1].source.boot == number
    assert find([warning], "old", "6.2.0", 2)[0].source == Source("old", "6.2.0", 2)


@given(st.lists(st.text(), max_size=30))
def test_any_text_can_be_searched(lines: list[str]) -> None:
    for found in find(lines, "old"):
        assert isinstance(found, Finding)
        assert found.report[0] == found.text
        assert kind_of(found.text) is found.kind


@given(st.lists(st.sampled_from([*ONE_LINE, *INNOCENT])), st.integers(0, 20))
def test_nothing_is_lost_between_other_lines(lines: list[str], at: int) -> None:
    """A panic is found wherever it stands, and findings come in the order of the text."""
    text = [*lines[:at], "[ 1.000000] Kernel panic - not syncing: here", *lines[at:]]
    found = find(text, "old")
    assert any(each.text == "Kernel panic - not syncing: here" for each in found)
    firsts = [parse(line).text for line in text]
    order = iter(firsts)
    assert all(any(each.text == text for text in order) for each in found)


@given(st.text())
def test_a_line_keeps_its_message(text: str) -> None:
    message = text.replace("\n", " ").replace("\r", " ").strip()
    assert parse(f"1234567 [    1.000000] {message}").text == message
