# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that keeps the rules of the module (uapi/multiroot.h) in memory."""

from __future__ import annotations

from typing import Any

from multiroot.device.uapi import Cpu, CpuState, Info, Ledger, Stage, Started
from multiroot.errors import ConflictError, MultirootError

ME, CHILD = 1, 2


class FakeDevice:
    """Holds what was done to it; `fail` names the method that refuses, once it is called with `fail_at`."""

    def __init__(self, fail: str = "", fail_at: object = None) -> None:
        self.fail = fail
        self.fail_at = fail_at
        self.claimed = False
        self.carved: tuple[int, int, int, int, int] | None = None
        self.cpus = dict.fromkeys(range(4), CpuState.OFFLINE)
        self.memory: dict[int, bytes] = {}
        self.entered: dict[str, int] | None = None
        self.ended: set[int] = set()

    def _maybe(self, name: str, argument: object = None) -> None:
        if name == self.fail and self.fail_at in (None, argument):
            raise ConflictError(f"{name} refused")

    def claim(self) -> None:
        self._maybe("claim")
        self.claimed = True

    def info(self) -> Info:
        base, size, low, low_size, shared = self.carved or (0, 0, 0, 0, 0)
        return Info(
            abi=1,
            wide_ids=False,
            has_parent=False,
            carved=bool(self.carved),
            claimed=self.claimed,
            root=ME,
            boot_hardware_id=0,
            tsc_khz=2_000_000,
            ledger=0x10000,
            parent_control=0,
            child_control=shared,
            carve_base=base,
            carve_size=size,
            low_base=low,
            low_size=low_size,
        )

    def ledger(self) -> Ledger:
        return Ledger(next_root=CHILD, roots_alive=1, boot_hardware_id=0, first_map=(), cpus={})

    def carve(self, base: int, size: int, *, low_base: int, low_size: int, shared: int) -> None:
        self._maybe("carve")
        assert self.claimed
        assert not self.carved
        self.carved = (base, size, low_base, low_size, shared)

    def uncarve(self) -> None:
        assert self.carved
        if any(state in (CpuState.GRANTED, CpuState.STARTED) for state in self.cpus.values()):
            raise ConflictError("CPUs are still granted")
        self.carved = None

    def cpu(self, number: int) -> Cpu:
        state = self.cpus[number]
        return Cpu(number, number, state, CHILD if state in (CpuState.GRANTED, CpuState.STARTED) else ME)

    def grant(self, number: int) -> Cpu:
        self._maybe("grant", number)
        assert self.carved
        self.cpus[number] = CpuState.GRANTED
        return self.cpu(number)

    def reclaim(self, number: int) -> Cpu:
        if self.cpus[number] not in (CpuState.GRANTED, CpuState.STARTED):
            raise MultirootError("not granted")
        self.cpus[number] = CpuState.OFFLINE
        return self.cpu(number)

    def write_segment(self, phys: int, data: bytes) -> None:
        self._maybe("write_segment", len(self.memory))
        assert self.carved
        self.memory[phys] = bytes(data)

    def read_memory(self, phys: int, size: int) -> bytes:
        """Memory in which no kernel has said anything."""
        return bytes(size)

    def find_word(self, phys: int, size: int, word: int) -> int:
        return 0

    def start(self, cpu: int, *, timeout_ms: int, **registers: int) -> Started:
        self._maybe("start")
        assert self.cpus[cpu] is CpuState.GRANTED
        self.cpus[cpu] = CpuState.STARTED
        self.entered = {"cpu": cpu, **registers}
        return Started(Stage.ENTRY, 1000, 3000)

    def has_ended(self, root: int) -> bool:
        return root in self.ended

    def control(self, peer: object) -> Any:
        raise AssertionError("no control page here")
