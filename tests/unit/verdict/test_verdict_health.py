# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of a kernel's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.verdict.health import Health, Verdict, judge


@pytest.mark.parametrize(
    ("line", "health"),
    [
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", Health.DEAD),
        ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", Health.DEAD),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", Health.BROKEN),
        ("BUG: unable to handle page fault for address: ffffc90000000000", Health.BROKEN),
        ("Oops: 0002 [#1] PREEMPT SMP NOPTI", Health.BROKEN),
        ("Oops: general protection fault, probably for non-canonical address: 0000 [#1]", Health.BROKEN),
        ("kernel BUG at mm/slub.c:546!", Health.BROKEN),
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [swapper/1:0]", Health.SLOW),
        ("BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 31s!", Health.SLOW),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", Health.SLOW),
        ("INFO: task swapper/0:1 blocked for more than 120 seconds.", Health.SLOW),
        ("WARNING: CPU: 0 PID: 1 at kernel/foo.c:1 bar+0x1/0x2", Health.WELL),
        ("Call Trace:", Health.WELL),
        ("Run /init as init process", Health.WELL),
        ("Spectre V2 : Mitigation: Retpolines", Health.WELL),
        ("multiroot: mark Oops: 7", Health.WELL),
        ("Debug: Kernel panic - not syncing is a string in this file", Health.WELL),
    ],
)
def test_one_line(line: str, health: Health) -> None:
    assert judge(["fine", line, "fine"]) == Verdict(health, line if health else "")


@given(st.lists(st.text()), st.lists(st.text()))
def test_lines_may_come_in_any_pieces_and_nothing_bad_is_forgotten(
    before: list[str], after: list[str]
) -> None:
    bad = "Kernel panic - not syncing: sysrq triggered crash"
    lines = [*before, bad, *after]
    whole = judge(lines)
    assert whole.health is Health.DEAD
    verdict = Verdict()
    for line in lines:
        verdict = judge([line], verdict)
    assert verdict == whole
