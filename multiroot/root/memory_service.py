# SPDX-License-Identifier: GPL-2.0-or-later
"""MemoryService: lets others look into the memory of the root that was started from this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from multiroot.device.uapi import SHARED_SIZE, Info
from multiroot.errors import BadRequestError, PeerLostError
from multiroot.ranges import Range
from multiroot.root.peers import Peer, Peers, Role
from multiroot.rpc.server import parse_root_name
from multiroot.rpc.v1 import common_pb2, memory_pb2, memory_pb2_grpc
from multiroot.units import MIB, PAGE

if TYPE_CHECKING:
    from multiroot.vmcore.kernel import Found

PIECE = MIB  # read, and sent, at once
_ZEROS = bytes(PIECE)


class Device(Protocol):
    """What is asked of the kernel module."""

    def read_memory(self, phys: int, size: int) -> bytes | bytearray:
        """A copy of memory in the carve or its low window."""

    def find_word(self, phys: int, size: int, word: int) -> int:
        """Where in it the 64-bit word is first, 0: nowhere."""

    def info(self) -> Info:
        """This root and its carve."""


@dataclass(frozen=True)
class MemoryParts:
    """What the service answers from; `root` is this root's number."""

    device: Device
    peers: Peers
    root: int


class MemoryService(memory_pb2_grpc.MemoryServiceServicer):
    """Reads only, through the module, and never anything but the carve and its low window."""

    def __init__(self, parts: MemoryParts) -> None:
        self._parts = parts

    async def Describe(
        self, request: memory_pb2.DescribeMemoryRequest, context: Any
    ) -> memory_pb2.RootMemory:
        child = self._child(request.root or "new")
        ranges = self._ranges()
        found, parked = await asyncio.to_thread(self._look, ranges, child.root)
        self._check(child.root)
        view = child.view()
        return memory_pb2.RootMemory(
            root=child.root,
            state=view.state,
            kernel_release=view.kernel_release,
            memory=[common_pb2.MemoryRange(start=each.base, size=each.size) for each in ranges],
            vmcoreinfo=found.info.text if found else b"",
            vmcoreinfo_address=found.address if found else 0,
            parked=[memory_pb2.ParkedCpu(cpu=cpu, stack=stack) for cpu, stack in sorted(parked.items())],
        )

    async def Read(
        self, request: memory_pb2.ReadMemoryRequest, context: Any
    ) -> AsyncIterator[memory_pb2.MemoryPiece]:
        self._check(request.root)
        there = self._ranges()
        wanted = [(each.start, each.size) for each in request.ranges]
        for start, size in wanted:
            if not any(each.base <= start and start + size <= each.end for each in there):
                raise BadRequestError(f"root {request.root} has no memory at {start:#x}-{start + size:#x}")
        for start, size in wanted:
            for at in range(start, start + size, PIECE):
                self._check(request.root)
                count = min(PIECE, start + size - at)
                for piece in await asyncio.to_thread(self._pieces, at, count):
                    yield piece

    def _look(self, ranges: list[Range], root: int) -> tuple[Found | None, dict[int, int]]:
        """The kernel in a root's memory, and where the stacks end of its CPUs that are parked."""
        # Most agents are never asked, and all of them are to start quickly.
        from multiroot.vmcore import kernel

        device = self._parts.device
        return kernel.find(device, ranges), kernel.parked(device, ranges, root)

    def _pieces(self, at: int, size: int) -> list[memory_pb2.MemoryPiece]:
        data = bytes(self._parts.device.read_memory(at, size))
        return [
            memory_pb2.MemoryPiece(start=at + begin, data=data[begin:end])
            for begin, end in not_zero(data, at % PAGE)
        ]

    def _child(self, name: str) -> Peer:
        """The root of that name. Raises BadRequestError, PeerLostError."""
        number = parse_root_name(name)
        child = self._parts.peers.get(Role.CHILD)
        if number in ("old", self._parts.root):
            raise BadRequestError(
                f"root {self._parts.root} runs the agent that is asked, and has no carve",
                "its memory is /proc/kcore; a root that it has started is `new`",
            )
        if child is None:
            raise PeerLostError("no root was started from this one", "`multiroot root list` shows the roots")
        if number not in ("new", child.root):
            raise BadRequestError(
                f"root {number} was not started from root {self._parts.root}",
                f"the root that was: `new`, or {child.root}",
            )
        return child

    def _check(self, root: int) -> None:
        """Raises PeerLostError when the root whose memory is asked for has been released."""
        child = self._parts.peers.get(Role.CHILD)
        if child is None or child.root != root:
            raise PeerLostError(f"root {root} was released: its memory is this root's again")

    def _ranges(self) -> list[Range]:
        """The low window and the carve, less what both roots share."""
        info = self._parts.device.info()
        if not info.carve_size or not info.child_control:
            raise PeerLostError("no root was started from this one", "`multiroot root list` shows the roots")
        shared, end = info.child_control, info.carve_base + info.carve_size
        parts = [
            (info.low_base, info.low_base + info.low_size),
            (info.carve_base, shared),
            (shared + SHARED_SIZE, end),
        ]
        return sorted(Range.between(start, stop) for start, stop in parts if start < stop)


def not_zero(data: bytes, skew: int = 0) -> Iterator[tuple[int, int]]:
    """Where runs of pages begin and end in `data` that are not all zero. The first page has lost `skew`
    bytes.
    """
    if data == _ZEROS[: len(data)]:
        return
    begin = -1
    at = 0
    while at < len(data):
        end = min(at + PAGE - (at + skew) % PAGE, len(data))
        if data[at:end] == _ZEROS[: end - at]:
            if begin >= 0:
                yield begin, at
            begin = -1
        elif begin < 0:
            begin = at
        at = end
    if begin >= 0:
        yield begin, len(data)
