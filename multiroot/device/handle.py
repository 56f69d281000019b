# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/multiroot, opened: each ioctl a typed method, each refusal an error that says what and why."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from multiroot.device.control import ControlPage, map_control
from multiroot.device.errors import NoDeviceError, refusal
from multiroot.device.uapi import (
    LEDGER_SIZE,
    Cpu,
    Info,
    Ledger,
    MemoryAction,
    PeerIndex,
    Stage,
    Started,
    cpu_from_c,
    ffi,
    info_from_c,
    ledger_from_c,
    lib,
)

DEVICE = Path("/dev/multiroot")

_CONTROL_OFFSET = {PeerIndex.PARENT: lib.MULTIROOT_MMAP_PARENT, PeerIndex.CHILD: lib.MULTIROOT_MMAP_CHILD}


class Device:
    """One open file of the device. The claim, once taken, lasts until `close`."""

    def __init__(self, path: Path = DEVICE) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise refusal("OPEN", f"cannot open {path}", error.errno or errno.EIO) from error
        self._controls: dict[PeerIndex, ControlPage] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap all pages, drop the claim. Twice is fine."""
        for index in tuple(self._controls):
            self.close_control(index)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def info(self) -> Info:
        """This root, its ledger, carve and peers."""
        raw = ffi.new("struct multiroot_info *")
        self._call("INFO", raw, "cannot ask the module")
        return info_from_c(raw)

    def claim(self) -> None:
        """Become the one coordinator; all that changes something needs it. ClaimError if there is one."""
        self._call("CLAIM", ffi.NULL, "cannot claim this root")

    def carve(self, base: int, size: int, low_base: int, low_size: int, shared: int) -> None:
        """Register memory for a new root and lay out the area shared with it.

        Physical addresses and sizes in bytes; `shared` lies inside the carve, aligned to 2 MiB.
        BadRequestError for a malformed range or one that is not RAM, ConflictError for memory in use.
        """
        raw = ffi.new("struct multiroot_carve *", (base, size, low_base, low_size, shared))
        what = f"cannot carve {_range(base, size)} with low window {_range(low_base, low_size)}"
        self._call("CARVE", raw, f"{what} and shared area at {shared:#x}")

    def uncarve(self) -> None:
        """Let the carve go; ConflictError while CPUs are granted or its control page is mapped."""
        self._call("UNCARVE", ffi.NULL, "cannot let the carve go")

    def write_segment(self, phys: int, data: bytes | bytearray | memoryview | mmap.mmap) -> None:
        """Copy `data` to physical address `phys`, inside the carve or its low window."""
        with ffi.from_buffer("char[]", data) as source:
            size = len(source)
            raw = ffi.new("struct multiroot_segment *", (phys, size, int(ffi.cast("uintptr_t", source))))
            self._call("WRITE", raw, f"cannot write a segment to {_range(phys, size)}")

    def read_memory(self, phys: int, size: int) -> bytearray:
        """A copy of memory inside the carve or its low window; a root may run there and change it."""
        data = bytearray(size)
        with ffi.from_buffer("char[]", data) as target:
            raw = ffi.new("struct multiroot_segment *", (phys, size, int(ffi.cast("uintptr_t", target))))
            self._call("READ", raw, f"cannot read {_range(phys, size)}")
        return data

    def find_word(self, phys: int, size: int, word: int) -> int:
        """Where the 64-bit `word` is first in memory inside the carve or its low window; 0: nowhere."""
        raw = ffi.new("struct multiroot_find *", (phys, size, word, 0))
        self._call("FIND", raw, f"cannot look through {_range(phys, size)}")
        return int(raw.found)

    def cpu(self, number: int) -> Cpu:
        """CPU `number` of this kernel; BadRequestError when there is none."""
        return self._cpu("CPU_GET", number, f"cannot look at CPU {number}")

    def grant(self, number: int) -> Cpu:
        """Take an offline CPU out of this kernel's hands, for the new root."""
        return self._cpu("CPU_GRANT", number, f"cannot grant CPU {number}")

    def start(
        self,
        cpu: int,
        *,
        trampoline: int,
        page_table: int,
        stack: int,
        entry: int,
        boot_params: int,
        timeout_ms: int = 2000,
    ) -> Started:
        """Send a granted CPU to 64-bit code at `entry`. WaitTimeoutError says at which stage it got stuck.

        Physical addresses, for the registers of struct multiroot_cpu_start.
        """
        raw = ffi.new(
            "struct multiroot_cpu_start *",
            {
                "cpu": cpu,
                "timeout_ms": timeout_ms,
                "trampoline": trampoline,
                "cr3": page_table,
                "stack": stack,
                "entry": entry,
                "boot_params": boot_params,
            },
        )
        number = self._ioctl("CPU_START", raw)
        if number:
            what = f"cannot start CPU {cpu} at {entry:#x}"
            if number == errno.ETIMEDOUT:
                what += f" within {timeout_ms} ms (stage {Stage(raw.stage).name.lower()})"
            raise refusal("CPU_START", what, number)
        return Started(Stage(raw.stage), raw.tsc_sipi, raw.tsc_entry)

    def reclaim(self, number: int) -> Cpu:
        """Take a granted CPU back, whatever it runs; a started one's root ends by that."""
        return self._cpu("CPU_RECLAIM", number, f"cannot reclaim CPU {number}")

    def inherit(self) -> bool:
        """The parent has ended: detach, stop its interrupts, DMA and IOMMUs. False until all its CPUs are
        parked.
        """
        number = self._ioctl("INHERIT", ffi.NULL)
        if number not in (0, errno.EAGAIN):
            raise refusal("INHERIT", "cannot inherit from the parent", number)
        return number == 0

    def adopt_cpu(self, hardware_id: int) -> Cpu:
        """Make a CPU of a root that has ended one of this root; it is present and offline afterwards."""
        raw = ffi.new("struct multiroot_cpu *", {"hardware_id": hardware_id})
        self._call("CPU_ADOPT", raw, f"cannot adopt the CPU with hardware id {hardware_id}")
        return cpu_from_c(raw)

    def adopt_pci(self, function: int = lib.MULTIROOT_PCI_ALL) -> None:
        """Let a PCI function of segment 0 in (bus << 8 | devfn), or all of all segments."""
        raw = ffi.new("struct multiroot_pci *", (function, 0))
        self._call("PCI_ADOPT", raw, "cannot adopt PCI devices")

    def memory(self, action: MemoryAction, base: int, size: int) -> int:
        """Sum up, zero or hot-add memory of roots that are gone; returns the sum.

        At most MEMORY_MOST bytes at once, or one memory block; what is added comes in whole memory blocks,
        which stay offline.
        """
        raw = ffi.new("struct multiroot_memory *", {"base": base, "size": size, "action": action})
        self._call("MEMORY", raw, f"cannot {action.name.lower()} {_range(base, size)}")
        return int(raw.sum)

    def doorbell(self, peer: PeerIndex, fd: int, mask: int) -> None:
        """Have eventfd `fd` (-1: none) signalled when `peer` rings with any of the events in `mask`."""
        raw = ffi.new("struct multiroot_doorbell *", (peer, fd, mask, 0))
        self._call("DOORBELL", raw, f"cannot listen to the {peer.name.lower()}")

    def ring(self, peer: PeerIndex, events: int) -> None:
        """Set `events` for `peer` and interrupt it: Event.STATE, Event.USER and above."""
        raw = ffi.new("struct multiroot_ring *", (peer, events))
        self._call("RING", raw, f"cannot ring the {peer.name.lower()}")

    def control(self, peer: PeerIndex) -> ControlPage:
        """The page shared with `peer`, mapped once; PeerLostError when there is no such root."""
        if peer not in self._controls:
            try:
                self._controls[peer] = map_control(self._fd, _CONTROL_OFFSET[peer], peer)
            except OSError as error:
                what = f"cannot map the control page shared with the {peer.name.lower()}"
                raise refusal("MAP", what, error.errno or errno.EIO) from error
        return self._controls[peer]

    def close_control(self, peer: PeerIndex) -> None:
        """Unmap the page shared with `peer`, if it is mapped."""
        page = self._controls.pop(peer, None)
        if page:
            page.close()

    def ledger(self) -> Ledger:
        """A copy of the ledger as it is now."""
        try:
            memory = mmap.mmap(
                self._fd, LEDGER_SIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=lib.MULTIROOT_MMAP_LEDGER
            )
        except OSError as error:
            raise refusal("MAP", "cannot map the ledger", error.errno or errno.EIO) from error
        with memory, ffi.from_buffer("char[]", memory) as buffer:
            return ledger_from_c(ffi.cast("struct multiroot_ledger *", buffer))

    def has_ended(self, root: int) -> bool:
        """Whether the root of that number has ended by the ledger as it is now; this one has not."""
        return root != self.info().root and self.ledger().has_ended(root)

    def _cpu(self, operation: str, number: int, what: str) -> Cpu:
        raw = ffi.new("struct multiroot_cpu *", {"cpu": number})
        self._call(operation, raw, what)
        return cpu_from_c(raw)

    def _call(self, operation: str, argument: Any, what: str) -> None:
        number = self._ioctl(operation, argument)
        if number:
            raise refusal(operation, what, number)

    def _ioctl(self, operation: str, argument: Any) -> int:
        """0 or an errno; begun again when a signal came in between."""
        request = getattr(lib, f"MULTIROOT_IOC_{operation}")
        while lib.ioctl(self._fd, request, ffi.cast("void *", argument)) < 0:
            if ffi.errno != errno.EINTR:
                return int(ffi.errno)
        return 0


def has_ended(root: int) -> bool:
    """`Device.has_ended` for one question; False where there is no module, and so no other root."""
    return _answer(lambda device: device.has_ended(root))


def is_another(root: int) -> bool:
    """Whether a root of that number lives beside this one; False where there is no module, as above."""
    return _answer(lambda device: root != device.info().root and not device.has_ended(root))


def _answer(question: Callable[[Device], bool]) -> bool:
    try:
        device = Device()
    except NoDeviceError:
        return False
    with device:
        return question(device)


def _range(base: int, size: int) -> str:
    return f"{base:#x}-{base + size:#x}"
