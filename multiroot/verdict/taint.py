# SPDX-License-Identifier: GPL-2.0-or-later
"""Taint flags of a kernel (Documentation/admin-guide/tainted-kernels.rst): what each means, and whether a
module explains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Bit number -> letter and name, in the kernel's order.
_FLAGS = (
    ("P", "PROPRIETARY_MODULE"),
    ("F", "FORCED_MODULE"),
    ("S", "CPU_OUT_OF_SPEC"),
    ("R", "FORCED_RMMOD"),
    ("M", "MACHINE_CHECK"),
    ("B", "BAD_PAGE"),
    ("U", "USER"),
    ("D", "DIE"),
    ("A", "OVERRIDDEN_ACPI_TABLE"),
    ("W", "WARN"),
    ("C", "CRAP"),
    ("I", "FIRMWARE_WORKAROUND"),
    ("O", "OOT_MODULE"),
    ("E", "UNSIGNED_MODULE"),
    ("L", "SOFTLOCKUP"),
    ("K", "LIVEPATCH"),
    ("X", "AUX"),
    ("T", "RANDSTRUCT"),
    ("N", "TEST"),
    ("J", "FWCTL"),
)
_NAMES = dict(_FLAGS)
# What nobody asked for: something went wrong in this kernel.
_TROUBLE = frozenset("MBDWLR")
_OF_MODULES = frozenset("PFCOEKN")
_TOLD = re.compile(r"\bTainted: (?P<flags>[A-Z ]+)(?= |$)")


@dataclass(frozen=True)
class Taint:
    """One flag. `by` are the modules that have it, as the kernel tells of them; empty if it names none."""

    letter: str
    by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As newer kernels print it."""
        return _NAMES.get(self.letter, "UNKNOWN")

    @property
    def trouble(self) -> bool:
        """Whether it says that something went wrong, and not only what somebody has loaded or chosen."""
        return self.letter in _TROUBLE

    def __str__(self) -> str:
        return f"{self.letter} ({self.name}{' by ' + ', '.join(self.by) if self.by else ''})"


def flags(number: int, modules: Mapping[str, str] | None = None) -> tuple[Taint, ...]:
    """What /proc/sys/kernel/tainted says. `modules` are their names with /sys/module/NAME/taint."""
    found = []
    for bit, (letter, _) in enumerate(_FLAGS):
        if number & 1 << bit:
            found.append(Taint(letter, _owners(letter, modules or {})))
    known = (1 << len(_FLAGS)) - 1
    return (*found, *(Taint("?") for _ in range(1 if number & ~known else 0)))


def told(text: str) -> tuple[Taint, ...]:
    """The flags in a line of a kernel's report ("CPU: 0 PID: 1 Comm: x Tainted: G W O 6.1.0 #1")."""
    match = _TOLD.search(text)
    letters = match["flags"].replace(" ", "") if match else ""
    return tuple(Taint(letter) for letter in letters if letter in _NAMES)


def _owners(letter: str, modules: Mapping[str, str]) -> tuple[str, ...]:
    if letter not in _OF_MODULES:
        return ()
    return tuple(sorted(name for name, letters in modules.items() if letter in letters))
