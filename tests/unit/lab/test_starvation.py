# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a machine was kept from running, by what the kernel counts for QEMU's threads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from multiroot.lab.starvation import Starvation

S = 1_000_000_000


def wait(tasks: Path, **waited_s: float) -> None:
    for name, seconds in waited_s.items():
        (tasks / name / "schedstat").write_text(f"77 {int(seconds * S)} 5\n")


def test_the_cpu_that_waited_longest_between_two_looks_counts(tmp_path: Path) -> None:
    tasks = tmp_path / "7/task"
    for task, comm in (("8", "CPU 0/TCG"), ("9", "CPU 1/TCG"), ("7", "qemu")):
        (tasks / task).mkdir(parents=True)
        (tasks / task / "comm").write_text(f"{comm}\n")
    wait(tasks, **{"7": 100, "8": 10, "9": 20})
    starved = Starvation(7, tmp_path)
    assert starved.seconds() == 0
    wait(tasks, **{"7": 900, "8": 10.5, "9": 20.25})
    assert starved.seconds() == 0.5
    wait(tasks, **{"8": 10.5, "9": 21.25})
    assert starved.seconds() == 1.5
    shutil.rmtree(tasks)
    assert starved.seconds() == 1.5


def test_of_what_is_not_there_nothing_is_known() -> None:
    assert Starvation(0).seconds() == 0
    # This process is no machine.
    assert Starvation(os.getpid()).seconds() == 0
