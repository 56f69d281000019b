# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching a lab's machine from the workstation: what its agents tell, and what the lab alone knows of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from multiroot.lab.recorder import console_log
from multiroot.lab.starvation import Starvation
from multiroot.lab.state import LabState
from multiroot.watch.collect import Add, Collector
from multiroot.watch.facts import Facts, MachineFacts, MemoryKind, RangeFacts
from multiroot.watch.join import OVER
from multiroot.watch.kernel_tail import Lines

_PORTS = ("old", "new")
_TAIL = 64 << 10  # bytes of a console's log that are read at first
_ROOTS_MOST = 8


def collector(lab: LabState) -> Collector:
    """Watches the machine of a lab; raises MultirootError when its token is not there."""
    return Collector(lab.agent_address, LabLook(lab).look, starved=Starvation(lab.pid).seconds)


class ConsoleFile:
    """The log of one serial port, read on and on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset: int | None = None
        self._rest = b""

    def read(self) -> list[str]:
        """The lines that have come since the last call."""
        try:
            with self._log.open("rb") as file:
                if self._offset is None:
                    self._offset = max(0, os.fstat(file.fileno()).st_size - _TAIL)
                file.seek(self._offset)
                data = file.read(_TAIL)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        # In front of each is when it came.
        return [line.partition(b" ")[2].decode(errors="replace") for line in lines]


class Consoles:
    """Which root says what. A root's serial port is the one that its parent has not."""

    def __init__(self, files: dict[str, ConsoleFile]) -> None:
        self._files = files
        self._ports: dict[int, str] = {}
        self._lines: dict[int, Lines] = {}

    def read(self, roots: Mapping[int, bool]) -> None:
        """Take in what was said; `roots` are the numbers of all that are known, and whether they live."""
        for number in sorted(roots):
            if number not in self._ports:
                older = [each for each in self._ports if each < number]
                # A root is started by one that lives, or did when we were not there yet.
                parent = max((each for each in older if roots.get(each)), default=max(older, default=0))
                self._ports[number] = "new" if self._ports.get(parent) == "old" else "old"
                self._lines[number] = Lines()
        for number in sorted(self._ports)[:-_ROOTS_MOST]:
            del self._ports[number], self._lines[number]
        for port, file in self._files.items():
            said = file.read()
            speaker = max((number for number, each in self._ports.items() if each == port), default=None)
            if speaker is not None:
                self._lines[speaker].add(said)

    def add(self, facts: Facts) -> None:
        """Put them into the facts, in place of what agents say: the last that a root says no agent tells."""
        for number, lines in self._lines.items():
            root = facts.roots.get(str(number))
            if root is not None and lines.last:
                root.console, root.splats = lines.last, lines.splats


class LabLook:
    """Looks at a lab's state folder."""

    def __init__(self, lab: LabState) -> None:
        self._lab = lab
        self._consoles = Consoles({port: ConsoleFile(lab.folder / console_log(port)) for port in _PORTS})
        self._known: dict[int, bool] = {1: True}
        self._image = ""

    async def look(self) -> Add:
        """What to add to the facts."""
        resets = await asyncio.to_thread(self._read)

        def add(facts: Facts) -> None:
            self._known = {int(number): root.state not in OVER for number, root in facts.roots.items()}
            self._add(facts, resets)

        return add

    def _read(self) -> int:
        if not self._image:
            with self._lab.machine.image.open("rb") as file:
                self._image = hashlib.file_digest(file, "sha256").hexdigest()
        self._consoles.read(self._known)
        return self._lab.resets()

    def _add(self, facts: Facts, resets: int) -> None:
        machine, layout = self._lab.machine, self._lab.machine.layout
        facts.machine = MachineFacts(machine.name, machine.accelerator, resets, layout.ram, machine.cpus)
        named = [(layout.image, "system image")]
        named += [(place, disk.origin.name) for place, disk in zip(layout.disks, machine.disks, strict=True)]
        for place, name in named:
            found = RangeFacts(place.start, place.size, MemoryKind.IMAGE, 0, name)
            facts.memory[f"{place.start:#x}"] = found
        for root in facts.roots.values():
            root.image_sha256 = self._image
        self._consoles.add(facts)
