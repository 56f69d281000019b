# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory as a root's /proc has it."""

from __future__ import annotations

from pathlib import Path

from multiroot.bench.in_root import footprint
from multiroot.bench.in_root.footprint import Footprint

SMAPS = """\
55d0c0000000-55d0c0100000 r-xp 00000000 fe:00 123                        /usr/bin/qemu-system-x86_64
Size:               1024 kB
Pss:                 300 kB
Pss_Dirty:             0 kB
7f0000000000-7f0008000000 rw-s 08000000 00:06 45                         /dev/dax0.0
Pss:              131072 kB
7f0010000000-7f0010200000 rw-p 00000000 00:00 0
Pss:                 512 kB
"""


def test_the_arena_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/smaps").write_text(SMAPS)
    assert footprint.process(7, tmp_path) == (300 + 512) * 1024


def test_a_root_is_what_it_was_given_and_what_is_left(tmp_path: Path) -> None:
    agent = tmp_path / "proc/31"
    agent.mkdir(parents=True)
    (agent / "comm").write_text("python3\n")
    (agent / "cmdline").write_bytes(b"/usr/bin/python3\0/usr/bin/multirootd\0")
    (agent / "smaps").write_text(SMAPS)
    (tmp_path / "proc/iomem").write_text(
        "00001000-0009efff : System RAM\n118000000-157ffffff : System RAM\n"
        "  119000000-119ffffff : Kernel code\n"
        "158000000-1ffffffff : Persistent Memory\n"
    )
    (tmp_path / "proc/meminfo").write_text("MemTotal:  900000 kB\nMemFree: 1 kB\nMemAvailable: 700000 kB\n")
    assert footprint.take(tmp_path) == Footprint(
        given=0x9E000 + 0x40000000, total=900000 * 1024, available=700000 * 1024, agent=812 * 1024
    )
