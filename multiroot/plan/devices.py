# SPDX-License-Identifier: GPL-2.0-or-later
"""Which PCI devices in use here cannot work in a later root: those that interrupt by pin only.

No root but the first has the controller that pins lead to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# PCI Local Bus specification 3.0: offsets in configuration space, and capabilities.
_STATUS, _CAPABILITIES, _PIN = 0x06, 0x34, 0x3D
_HAS_CAPABILITIES = 1 << 4
_MSI, _MSIX = 0x05, 0x11


@dataclass(frozen=True)
class Stays:
    """A function that a later root can't drive, by its address, and the driver it has here."""

    function: str
    driver: str
    why: str

    def __str__(self) -> str:
        return f"{self.function} ({self.driver}): {self.why}"


def stays(sys: Path = Path("/sys")) -> tuple[Stays, ...]:
    """Functions with a driver whose interrupts are by pin only; legacy devices are not among them."""
    found = []
    for function in sorted((sys / "bus/pci/devices").glob("*")):
        driver = function / "driver"
        config = (function / "config").read_bytes() if driver.exists() else b""
        if len(config) >= 64 and config[_PIN] and not capabilities(config) & {_MSI, _MSIX}:
            found.append(
                Stays(function.name, driver.resolve().name, "its interrupts are by pin only, not MSI")
            )
    return tuple(found)


def capabilities(config: bytes) -> set[int]:
    """Ids in a function's list of capabilities; a list that is broken or shortened ends where it does so."""
    found: set[int] = set()
    if len(config) < 64 or not config[_STATUS] & _HAS_CAPABILITIES:
        return found
    seen: set[int] = set()
    at = config[_CAPABILITIES] & ~3
    while at >= 64 and at + 1 < len(config) and at not in seen:
        seen.add(at)
        found.add(config[at])
        at = config[at + 1] & ~3
    return found
