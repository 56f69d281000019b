# SPDX-License-Identifier: GPL-2.0-or-later
"""The first line of each kind of trouble that a kernel reports, as kernels from 6.1 on write it."""

from __future__ import annotations

import re
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of trouble. What one is called is also its name in an allow list."""

    PANIC = "panic"
    OOPS = "oops"
    KASAN = "kasan"
    KCSAN = "kcsan"
    KMSAN = "kmsan"
    KFENCE = "kfence"
    UBSAN = "ubsan"
    LOCKDEP = "lockdep"
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    WORKQUEUE = "workqueue lockup"
    RCU = "rcu stall"
    HUNG_TASK = "hung task"
    BUG = "bug"
    WARNING = "warning"
    KMEMLEAK = "kmemleak"
    ALLOCATION = "page allocation failure"
    OOM = "out of memory"
    MACHINE_CHECK = "machine check"
    TAINT = "taint"  # no message: what /proc/sys/kernel/tainted says that no message explains


# lib/locking and kernel/locking/lockdep.c: all that lockdep prints before it turns itself off.
_LOCKDEP = (
    r"WARNING: (?:possible (?:circular locking dependency|recursive locking|irq lock inversion dependency)"
    r"|(?:HARD|SOFT)IRQ-safe -> (?:HARD|SOFT)IRQ-unsafe lock order|inconsistent lock state"
    r"|suspicious RCU usage|bad unlock balance|bad contention detected|held lock freed"
    r"|lock held when returning to user space|Nested lock was not taken|chain hash inconsistency"
    r"|.*\block inversion\b)"
    r"|\[ BUG: (?:Invalid wait context|.* held at task exit time|.*lock held)"
    r"|INFO: trying to register non-static key|BUG: MAX_(?:LOCK|STACK|LOCKDEP)\w* too low"
    r"|BUG: (?:held lock freed|lock held)|BUG: key \S+ (?:not in \.data|has not been registered)"
)

# In this order: of a line that several fit, the first counts. All are anchored to the start of the message.
_SIGNS: tuple[tuple[Kind, str], ...] = (
    (Kind.PANIC, r"Kernel panic - not syncing"),
    (Kind.KASAN, r"BUG: KASAN: |KASAN: (?:null-ptr-deref|probably|maybe) "),
    (Kind.KCSAN, r"BUG: KCSAN: "),
    (Kind.KMSAN, r"BUG: KMSAN: "),
    (Kind.KFENCE, r"BUG: KFENCE: "),
    (Kind.UBSAN, r"UBSAN: [\w-]+ in "),
    (Kind.LOCKDEP, _LOCKDEP),
    (Kind.SOFT_LOCKUP, r"(?:watchdog: )?BUG: soft lockup"),
    (Kind.HARD_LOCKUP, r"(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP"),
    (Kind.WORKQUEUE, r"BUG: workqueue lockup"),
    (
        Kind.RCU,
        r"(?:rcu: )?INFO: \S+ (?:detected (?:expedited )?stalls|self-detected stall)"
        r"|rcu: \S+ kthread (?:timer wakeup didn't happen|starved) for \d+ jiffies",
    ),
    (Kind.HUNG_TASK, r"INFO: task .{1,64}:\d+ blocked (?:in I/O wait )?for more than \d+ seconds"),
    (
        Kind.OOPS,
        r"Oops\b|BUG: unable to handle |BUG: kernel NULL pointer dereference|general protection fault"
        r"|Unable to handle kernel |Internal error: |PANIC: |(?:traps: )?double fault"
        r"|(?:divide error|invalid opcode|stack segment|int3|segment not present|control protection fault)"
        r": [0-9a-f]{4} \[#\d+\]",
    ),
    (Kind.BUG, r"BUG: |kernel BUG at "),
    (Kind.WARNING, r"WARNING: "),
    (Kind.KMEMLEAK, r"kmemleak: \d+ new suspected memory leaks|unreferenced object 0x[0-9a-f]+ \(size "),
    (Kind.ALLOCATION, r".{1,32}: page allocation (?:failure|stalls)\b|warn_alloc: "),
    (
        Kind.OOM,
        r"Out of memory: Killed process|Memory cgroup out of memory: Killed|.{1,32} invoked oom-killer: ",
    ),
    (Kind.MACHINE_CHECK, r"mce: \[Hardware Error\]|\[Hardware Error\]: "),
)
_PATTERNS = tuple((kind, re.compile(sign)) for kind, sign in _SIGNS)
# Every sign has one of these words: most lines of a log need no more than this to be passed over.
_WORDS = re.compile(
    r"panic|BUG|KASAN|UBSAN|WARNING|LOCKUP|INFO:|rcu:|Oops|fault|handle|error|PANIC|opcode|segment|int3"
    r"|leaks|unreferenced|page allocation|warn_alloc|emory|oom-killer|Hardware"
)


def kind_of(text: str) -> Kind | None:
    """The kind of trouble that begins with the message `text`; None if none does."""
    if not _WORDS.search(text):
        return None
    return next((kind for kind, sign in _PATTERNS if sign.match(text)), None)
