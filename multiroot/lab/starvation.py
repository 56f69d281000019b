# SPDX-License-Identifier: GPL-2.0-or-later
"""How long this computer has kept an emulated machine from running, because others had its CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CPU = "CPU "  # so QEMU names the threads that are a machine's CPUs


class Starvation:
    """Adds up how long a machine's CPUs have waited. Between two looks the one counts that waited longest."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        """`pid` is QEMU's."""
        self._counts = tuple(_counts(proc / str(pid) / "task"))
        self._before = self._waits()
        self._total_ns = 0

    def seconds(self) -> float:
        """All in all since this was made. To be asked often: what is added goes by how often that is."""
        now = self._waits()
        added = (wait - before for wait, before in zip(now, self._before, strict=False))
        self._total_ns += max(added, default=0)
        self._before = now
        return self._total_ns / 1e9

    def _waits(self) -> tuple[int, ...]:
        """Of each CPU, ns that it could have run and did not (Documentation/scheduler/sched-stats.rst)."""
        try:
            return tuple(int(each.read_text().split()[1]) for each in self._counts)
        except OSError:  # the machine has ended
            return ()


def _counts(tasks: Path) -> Iterator[Path]:
    """Where the kernel counts for each of a machine's CPUs; none where it does not count."""
    try:
        for task in sorted(tasks.iterdir()):
            count = task / "schedstat"
            if (task / "comm").read_text().startswith(_CPU) and count.exists():
                yield count
    except OSError:  # it has ended
        return
