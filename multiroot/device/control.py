# SPDX-License-Identifier: GPL-2.0-or-later
"""A control page as Python sees it: the page two neighbouring roots share (struct multiroot_control)."""

from __future__ import annotations

import mmap
from typing import Any

from multiroot.device.uapi import CONTROL_SIZE, PeerIndex, ffi

_WORD = (1 << 64) - 1


class Side:
    """One root's half. Each word is read and written in one piece; nothing is cached."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def forget(self) -> None:
        """Let go of the page, which is about to be unmapped."""
        self._raw = ffi.new("struct multiroot_side *")

    @property
    def state(self) -> int:
        """MULTIROOT_SIDE_*."""
        return int(self._raw.state)

    @state.setter
    def state(self, value: int) -> None:
        self._raw.state = value

    @property
    def root(self) -> int:
        """Number in the ledger."""
        return int(self._raw.root)

    @root.setter
    def root(self, value: int) -> None:
        self._raw.root = value

    @property
    def hardware_id(self) -> int:
        """The CPU that takes this root's doorbell."""
        return int(self._raw.hardware_id)

    @property
    def vector(self) -> int:
        """Its interrupt vector, 0 before there is one."""
        return int(self._raw.vector)

    @property
    def rings(self) -> int:
        """Doorbell interrupts taken."""
        return int(self._raw.rings)

    @property
    def heartbeat(self) -> int:
        """Count, raised by the agent."""
        return int(self._raw.heartbeat)

    @heartbeat.setter
    def heartbeat(self, value: int) -> None:
        # The other root can write here too: what we add to need not be what we wrote.
        self._raw.heartbeat = value & _WORD

    @property
    def heartbeat_tsc(self) -> int:
        """TSC of the last heartbeat."""
        return int(self._raw.heartbeat_tsc)

    @heartbeat_tsc.setter
    def heartbeat_tsc(self, value: int) -> None:
        self._raw.heartbeat_tsc = value

    @property
    def attached_tsc(self) -> int:
        """TSC when multiroot.ko came up."""
        return int(self._raw.attached_tsc)

    @attached_tsc.setter
    def attached_tsc(self, value: int) -> None:
        self._raw.attached_tsc = value

    @property
    def ready_tsc(self) -> int:
        """TSC when the agent first answered."""
        return int(self._raw.ready_tsc)

    @ready_tsc.setter
    def ready_tsc(self, value: int) -> None:
        self._raw.ready_tsc = value

    @property
    def boot_id(self) -> bytes:
        """The 16 bytes of the kernel's boot id."""
        return bytes(ffi.buffer(self._raw.boot_id))

    @boot_id.setter
    def boot_id(self, value: bytes) -> None:
        if len(value) != len(self._raw.boot_id):
            raise ValueError(f"a boot id has {len(self._raw.boot_id)} bytes, not {len(value)}")
        ffi.buffer(self._raw.boot_id)[:] = value

    @property
    def release(self) -> str:
        """Kernel release, as of uname."""
        return bytes(ffi.string(self._raw.release)).decode(errors="replace")


class ControlPage:
    """The page and its two halves, seen from the root that is `peer`'s neighbour."""

    def __init__(self, memory: mmap.mmap, peer: PeerIndex) -> None:
        self._memory = memory
        self._buffer = ffi.from_buffer("char[]", memory, require_writable=True)
        self._raw = ffi.cast("struct multiroot_control *", self._buffer)
        ours = 1 if peer is PeerIndex.PARENT else 0
        self.mine = Side(self._raw.side[ours])
        self.theirs = Side(self._raw.side[1 - ours])

    @property
    def magic(self) -> int:
        """CONTROL_MAGIC when the page was laid out."""
        return int(self._raw.magic)

    @property
    def start_tsc(self) -> int:
        """TSC when the child's first CPU was sent off."""
        return int(self._raw.start_tsc)

    def close(self) -> None:
        """Unmap. Whoever still holds one of the halves reads zeros from now on: an absent root."""
        for side in (self.mine, self.theirs):
            side.forget()
        self._raw = ffi.new("struct multiroot_control *")
        ffi.release(self._buffer)
        self._memory.close()


def map_control(fd: int, offset: int, peer: PeerIndex) -> ControlPage:
    """Map the control page at `offset` of the device; raises OSError."""
    return ControlPage(mmap.mmap(fd, CONTROL_SIZE, mmap.MAP_SHARED, offset=offset), peer)
