# SPDX-License-Identifier: GPL-2.0-or-later
"""What someone wants for a new root, and the errors that say what would have worked instead."""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.errors import BadRequestError, ConflictError
from multiroot.ranges import Range
from multiroot.units import MIB, format_cpu_list

# No kernel comes up in less. The planner takes it for the least when it is not told what will be loaded.
CARVE_FLOOR = 128 * MIB
# A kernel that comes up in less may have no room for an agent and a VMM: it then reads their programs again
# and again, and does nothing else. 226 MiB were seen in use (docs/performance.md).
CARVE_ENOUGH = 2 * CARVE_FLOOR


@dataclass(frozen=True)
class Request:
    """Anything left out is the planner's choice.

    `cpus` are logical numbers, or `cpu_count` of them; `needed` is the least carve that kernel and
    initrd come up in; with `pmem` the new root is shown all persistent memory, and planning fails
    where there is none.
    """

    cpus: tuple[int, ...] | None = None
    cpu_count: int | None = None
    carve_size: int | None = None
    carve_base: int | None = None
    low: Range | None = None
    needed: int = CARVE_FLOOR
    pmem: bool = True

    def describe(self) -> str:
        """As options of the command line."""
        words: list[str] = []
        if self.cpus is not None:
            words.append(f"--cpus {format_cpu_list(self.cpus)}")
        elif self.cpu_count is not None:
            words.append(f"--cpu-count {self.cpu_count}")
        if self.carve_size is not None:
            at = "" if self.carve_base is None else f"@{self.carve_base:#x}"
            words.append(f"--carve {self.carve_size // MIB}M{at}")
        if self.low is not None:
            words.append(f"--low-window {self.low.size // 1024}K@{self.low.base:#x}")
        if not self.pmem:
            words.append("--no-pmem")
        return " ".join(words) or "the planner's choice"


class PlanRequestError(BadRequestError):
    """The request can not be met on any machine; `nearest` is one that works here, if there is any."""

    def __init__(self, message: str, hint: str = "", nearest: Request | None = None) -> None:
        super().__init__(message, hint)
        self.nearest = nearest


class PlanConflictError(ConflictError):
    """Something on this machine is in the way; `nearest` is a request that works, if there is any."""

    def __init__(self, message: str, hint: str = "", nearest: Request | None = None) -> None:
        super().__init__(message, hint)
        self.nearest = nearest


PlanError = PlanRequestError | PlanConflictError
