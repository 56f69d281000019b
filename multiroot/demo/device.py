# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's device: a network card that a VM owns, and the numbered frames that show what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from multiroot.errors import WaitTimeoutError
from multiroot.rpc.v1 import device_pb2, vm_pb2, vm_pb2_grpc

MACHINE = "passthrough"  # of qemu-lab/machines, and the kernel that its roots want
KERNEL = "6.12-full"
GUEST = "ticker-full"
CARD = "01:00.0"
APPEND = "ticker.card=eth1 loglevel=7"  # eth0 is the card on the bridge
FRAMES_AFTER = 100
# Of numbered writes: bytes of one, how many places there are, how many are under way at most.
BLOCK, PLACES, UNDER_WAY = 512, 8192, 4

_LINE = re.compile(rb"(?<=\n)F (\d+) (\d+) count=(\d+) lost=(\d+) again=(\d+) dropped=(\d+)\r?\n")
_WRITES = re.compile(rb"(?<=\n)B (\d+) begun=(\d+) bad=(\d+)\r?\n")
_OWN = re.compile(rb"[TRFB] ")
# The machine stood still, or its emulator was slow: about clocks, not about the device.
_CLOCKS = re.compile(rb"\[ *[0-9.]+\] (clocksource|hrtimer|timekeeping|tsc|TSC|sched_clock)\b")


@dataclass(frozen=True)
class Frames:
    """The guest's own account of the numbered frames it got (qemu-lab/guests/README.md)."""

    first: int
    last: int
    count: int
    lost: int
    again: int
    dropped: int

    @property
    def unbroken(self) -> bool:
        """Every number from the first to the last exactly once."""
        return not self.lost and not self.again and self.count == self.last - self.first + 1


@dataclass(frozen=True)
class Writes:
    """The guest's own account of its numbered writes: ended well, the last one's number, ended badly."""

    done: int
    begun: int
    bad: int


@dataclass(frozen=True)
class DeviceSeen:
    """One device's handoff. `told_before` is the last number that the guest had told of in the old root,
    `frames` its account in the new one, `driver_lines` what its kernel logged there; times in ns.
    `in_blackout` frames came while no vCPU ran. `resets_before` resets of the card, by its driver, came
    before the handoff and `resets` since. `interrupts` are those that the old root had counted for it
    before the handoff, and the new one after it; `remapped` vectors go through the IOMMU's table.
    """

    told_before: int
    frames: Frames
    driver_lines: int
    same_translations: bool
    pages: int
    verify_ns: int
    switch_ns: int
    in_blackout: int
    resets_before: int
    resets: int
    interrupts: tuple[int, int]
    remapped: int


def parse(output: bytes) -> list[Frames]:
    """All accounts in a stretch of the guest's output that came whole."""
    return [Frames(*map(int, match)) for match in _LINE.findall(output)]


def parse_writes(output: bytes) -> list[Writes]:
    """All accounts of writes that came whole."""
    return [Writes(*map(int, match)) for match in _WRITES.findall(output)]


def misplaced(disk: bytes, seen: Writes) -> list[int]:
    """Places of the numbered writes, which `disk` begins with, whose block is not the one that belongs there.

    Every block holds one number, that of the last write to its place; those under way may be there or not.
    """
    wrong = []
    for place in range(PLACES):
        block = disk[place * BLOCK : (place + 1) * BLOCK]
        number = int.from_bytes(block[:8], "little")
        whole = block == number.to_bytes(8, "little") * (BLOCK // 8)
        # The account is older than the disk: what was begun since is there already.
        newest = seen.begun - (seen.begun - place) % PLACES
        later = number > seen.begun and number % PLACES == place
        earlier = number == max(newest - PLACES, 0) and newest > seen.begun - UNDER_WAY
        if not whole or not (number == max(newest, 0) or later or earlier):
            wrong.append(place)
    return wrong


def foreign_lines(output: bytes) -> int:
    """Lines of a stretch of the guest's output that are neither the ticker's nor its kernel's about clocks.

    The first and the last line may be cut, and do not count.
    """
    lines = output.split(b"\n")[1:-1]
    return sum(not (_OWN.match(line) or _CLOCKS.match(line)) for line in lines)


def output_until(channel: grpc.Channel, name: str, above: int, timeout: float) -> bytes:
    """All output of a VM in a root up to an account of a frame, or a write, numbered above `above`.

    Without such an account: what there is of a VM that does not run there, else WaitTimeoutError.
    """
    output = b""
    request = vm_pb2.ConsoleRequest(name=name, history=True)
    call = vm_pb2_grpc.VmServiceStub(channel).Console(_once(request), timeout=timeout)
    try:
        for answer in call:
            output += answer.output
            frames, writes = parse(output), parse_writes(output)
            if (frames and frames[-1].last > above) or (writes and writes[-1].done > above):
                break
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        raise WaitTimeoutError(f"the guest of {name} tells of nothing above {above}") from error
    finally:
        call.cancel()
    return output


def interrupts(table: str) -> int:
    """Interrupts of devices that VMs own, from the text of /proc/interrupts."""
    lines = [line.split() for line in table.splitlines() if "vfio-msix" in line]
    return sum(int(word) for line in lines for word in line[1:] if word.isdecimal())


def judge(before: bytes, after: bytes, moved: device_pb2.DeviceMoved, **seen: Any) -> DeviceSeen:
    """From the guest's output in the old root and in the new one, which both hold an account.

    `seen` are the fields that these do not tell.
    """
    kept = ("did", "context", "leaves", "crc", "remapped")
    return DeviceSeen(
        told_before=parse(before)[-1].last,
        frames=parse(after)[-1],
        driver_lines=foreign_lines(after),
        same_translations=moved.before.leaves > 0
        and all(getattr(moved.before, name) == getattr(moved.after, name) for name in kept),
        pages=moved.same,
        verify_ns=moved.verify_ns,
        switch_ns=moved.switch_ns,
        remapped=moved.after.remapped,
        **seen,
    )


def _once(request: vm_pb2.ConsoleRequest) -> Iterator[vm_pb2.ConsoleRequest]:
    yield request
