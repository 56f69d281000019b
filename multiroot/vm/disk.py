# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's disks, in words that mean the same in every root; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from multiroot.errors import BadRequestError
from multiroot.ranges import PHYS_BITS
from multiroot.vm.fields import Option

BUSES = ("virtio-blk", "virtio-scsi", "cd")
MOST = 8
_PMEM = re.compile(r"pmem:0x([0-9a-f]{1,13})")


@dataclass(frozen=True)
class Disk:
    """A disk that every root reaches. `source` is "pmem:ADDRESS", persistent memory by where it begins, which
    is the same in all roots of a machine; `bus` is what the guest sees it on.
    """

    source: str
    bus: str = BUSES[0]
    read_only: bool = False

    @property
    def address(self) -> int:
        """Physical address of its first byte; `checked` sees to it that there is one."""
        return int(self.source.partition(":")[2], 16)

    def checked(self) -> Disk:
        """Raises BadRequestError for what is no disk."""
        found = _PMEM.fullmatch(self.source.lower())
        if not found or int(found[1], 16) >> PHYS_BITS:
            raise BadRequestError(
                f"not a disk that every root reaches: {self.source!r}",
                "`multiroot disk list` in a root shows those there are: pmem:0x1c0000000",
            )
        if self.bus not in BUSES:
            raise BadRequestError(f"no bus for disks called {self.bus!r}", f"there are: {', '.join(BUSES)}")
        return replace(self, source=name_of(int(found[1], 16)), read_only=self.read_only or self.bus == "cd")


def parse_disks(texts: Sequence[str]) -> tuple[Disk, ...]:
    """Disks as an option has them, SOURCE[,bus=BUS][,ro]; raises BadRequestError for other words."""
    return tuple(map(_parse, texts))


def _parse(text: str) -> Disk:
    source, *words = text.split(",")
    disk = Disk(source)
    for word in words:
        name, _, value = word.partition("=")
        if name == "bus":
            disk = replace(disk, bus=value)
        elif word == "ro":
            disk = replace(disk, read_only=True)
        else:
            raise BadRequestError(f"not a word about a disk: {word!r}", f"there are: bus={BUSES[0]}, ro")
    return disk


OPTION = Option(
    "--disk",
    f"A disk of the VM, as `multiroot disk list` has it; several may be given. BUS is {', '.join(BUSES)}.",
    "pmem:ADDRESS[,bus=BUS][,ro]",
    default=(),
    parse=parse_disks,
    multiple=True,
)


def name_of(address: int) -> str:
    """The source that begins at a physical address."""
    return f"pmem:{address:#x}"


def check_disks(disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """All of a VM, checked; raises BadRequestError also for one that is given twice."""
    if len(disks) > MOST:
        raise BadRequestError(f"a VM cannot have {len(disks)} disks", f"{MOST} at most")
    made = tuple(disk.checked() for disk in disks)
    for number, disk in enumerate(made):
        if any(disk.source == other.source for other in made[:number]):
            raise BadRequestError(f"the disk {disk.source} is given twice")
    return made
