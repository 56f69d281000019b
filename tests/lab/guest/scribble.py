# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a new root: writes into the memory that it shares with its parent whatever a broken kernel might.

Arguments: a seed, and how many seconds each kind of damage is done. Says on the kernel's console when it has
ended. What the link and the agents of this root become by it does not matter.
"""

import mmap
import os
import random
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from multiroot.device.handle import Device
from multiroot.device.uapi import SHARED_SIZE, Event, PeerIndex, ffi

CONTROL, CONSOLE, RINGS = 0, 0x1000, (0x40000, 0x120000)  # csrc/kmod/core/core.h
CONSOLE_RING, LINK_RING = 0x20000, 0x80000  # bytes of text, of records
WRITTEN, READ, WAKE, DATA = 0, 64, 128, 192  # struct mr_ring
RECORD = struct.Struct("<II BBHHHH 2x")  # struct mr_record: size, reserved, struct virtio_net_hdr
SIDE = ffi.sizeof("struct multiroot_side")
SIDES = ffi.offsetof("struct multiroot_control", "side")
FIELDS = {
    name: (field.offset, ffi.sizeof(field.type)) for name, field in ffi.typeof("struct multiroot_side").fields
}
STATES = (0, 1, 2, 3, 4, 5, 255, 1 << 31, (1 << 32) - 1)
# System calls, the timer, a function call, a reboot, a spurious interrupt; and what is no vector at all.
VECTORS = (0, 2, 8, 14, 31, 0x80, 0xEC, 0xF3, 0xF8, 0xFB, 0xFD, 0xFF, 0x100, (1 << 32) - 1)


class Scribbler:
    def __init__(self, seed: int, seconds: float) -> None:
        self.random = random.Random(seed)
        self.seconds = seconds
        where = re.search(r"multiroot\.shared=(\S+)", Path("/proc/cmdline").read_text())
        assert where
        memory = os.open("/dev/mem", os.O_RDWR)
        self.shared = mmap.mmap(memory, SHARED_SIZE, offset=int(where[1], 0))
        self.device = Device()

    def put(self, offset: int, value: int, size: int = 8) -> None:
        self.shared[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def get(self, offset: int) -> int:
        return int.from_bytes(self.shared[offset : offset + 8], "little")

    def word(self) -> int:
        """Random, or one at which sums and comparisons turn over."""
        edge = self.random.choice((0, 1 << 16, CONSOLE_RING, LINK_RING, 1 << 31, 1 << 32, 1 << 63, 1 << 64))
        return self.random.choice((self.random.getrandbits(64), edge + self.random.randrange(-9, 9)))

    def ring(self) -> None:
        self.device.ring(PeerIndex.PARENT, self.random.choice((Event.STATE, Event.USER)))

    def until_over(self, damage: Callable[[], None]) -> None:
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            damage()

    def half(self) -> None:
        """A field of either half of the control page; then the peer is told."""
        name = self.random.choice(("state", "hardware_id", "vector", "events", "heartbeat", *FIELDS))
        offset, size = FIELDS[name]
        value = self.word()
        if name == "state":
            value = self.random.choice(STATES)
        elif name == "vector":
            value = self.random.choice(VECTORS)
        elif name == "hardware_id":
            value = self.random.choice((0, 1, 2, 3, 255, value))
        size = size if size <= 8 else self.random.choice((1, 2, 4, 8))
        self.put(CONTROL + SIDES + self.random.randrange(2) * SIDE + offset, value, size)
        if self.random.random() < 0.2:
            self.ring()

    def page(self) -> None:
        """Anywhere in the control page."""
        self.put(CONTROL + self.random.randrange(0, 4088), self.word())

    def console(self) -> None:
        """Where the text ends, and text."""
        self.put(CONSOLE + self.random.choice((WRITTEN, READ)), self.word())
        at = CONSOLE + self.random.randrange(CONSOLE_RING)
        self.shared[at : at + 64] = self.random.randbytes(64)
        print("a message", file=self.kmsg, flush=True)

    def frame(self) -> None:
        """A record in order, with a frame that is not. The device is down: nobody else writes."""
        ring = RINGS[1]
        at = self.get(ring + WRITTEN)
        size = self.random.choice((14, 60, 1500, 9000, self.random.randrange(14, 65000)))
        space = (RECORD.size + size + 7) // 8 * 8
        if at + space - self.get(ring + READ) > LINK_RING:
            return self.wake()
        header = RECORD.pack(
            size,
            self.random.getrandbits(32),
            self.random.choice((0, 1, 2, self.random.getrandbits(8))),
            self.random.choice((0, 1, 3, 4, 5, 0x81, self.random.getrandbits(8))),
            *(self.random.choice((0, 1, 14, 34, 54, size, self.random.getrandbits(16))) for _ in range(4)),
        )
        kind = self.random.choice((b"\x08\x00\x45\x00", b"\x86\xdd\x60\x00", b"\x08\x06", b"\x81\x00"))
        frame = b"\xff" * 6 + b"\x02\x4d\x52" + self.random.randbytes(3) + kind + self.random.randbytes(48)
        for number, byte in enumerate(header + frame[:size]):
            self.shared[ring + DATA + (at + number) % LINK_RING] = byte
        self.put(ring + WRITTEN, at + space)
        return self.wake()

    def wake(self) -> None:
        self.put(CONTROL + SIDES + FIELDS["events"][0], Event.LINK, 4)
        self.device.ring(PeerIndex.PARENT, Event.USER)

    def link(self) -> None:
        """Positions, flags and sizes of both rings."""
        ring = self.random.choice(RINGS)
        self.put(ring + self.random.choice((WRITTEN, READ, WAKE)), self.word())
        self.put(ring + DATA + self.random.randrange(0, LINK_RING, 8), self.word())
        self.wake()

    def everything(self) -> None:
        """Anywhere at all, in pieces."""
        size = self.random.choice((8, 64, 4096, 65536))
        at = self.random.randrange(SHARED_SIZE - size)
        self.shared[at : at + size] = self.random.randbytes(size)
        self.ring()

    def storm(self) -> None:
        """All events at once, as often as this root can."""
        for side in range(2):
            self.put(CONTROL + SIDES + side * SIDE + FIELDS["events"][0], (1 << 32) - 1, 4)
            self.put(CONTROL + SIDES + side * SIDE + FIELDS["state"][0], self.random.choice((2, 3)), 4)
        self.device.ring(PeerIndex.PARENT, Event.STATE)

    def run(self) -> None:
        before = self.shared[:CONSOLE]
        with Path("/dev/kmsg").open("w") as self.kmsg:
            for damage in (self.console, self.half, self.page):
                self.until_over(damage)
                # The vector and the state of the parent: without them the next kind would reach nobody.
                self.shared[:CONSOLE] = before
            subprocess.run(["ip", "link", "set", "mrctlup0", "down"], check=True)
            self.until_over(self.frame)
            for damage in (self.storm, self.link, self.everything):
                self.until_over(damage)
            self.shared[:CONSOLE] = before
            self.until_over(self.storm)
            print("<3>multiroot: mark scribbled 0", file=self.kmsg, flush=True)


Scribbler(int(sys.argv[1]), float(sys.argv[2])).run()
