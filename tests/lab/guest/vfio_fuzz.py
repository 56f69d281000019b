# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a root, beside vfio_device.py: bad input by several threads at once to every ioctl of a device's
VFIO file, to those of our modules' devices that no file has claimed, and to the files of a migration. Then
the device still works.

Arguments: ADDRESS ROUNDS SEED. Prints how often each answer came, as JSON. The device's registers are left
alone.
"""

import errno
import fcntl
import json
import os
import random
import struct
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from vfio_device import FEATURE, MSIX, RUNNING, SET, SET_IRQS, STATE, STOP, VECTORS, Device, vfio

from multiroot.device.uapi import lib
from multiroot.passthrough.functions import Functions

THREADS = 4
ROOM = 1 << 16  # no size that is told is larger than what is there
SIZES = (0, 4, 8, 12, 16, 20, 24, 28, 40, 64, 4096, ROOM)
FILE_AT = 12  # of struct vfio_device_feature_mig_state behind its header
CLAIMS = (lib.MULTIROOT_IOMMU_IOC_CLAIM, lib.MULTIROOT_PCI_IOC_CLAIM)
OURS = [
    (f"/dev/multiroot_{module.lower()}", getattr(lib, name))
    for module in ("IOMMU", "PCI")
    for name in dir(lib)
    if name.startswith(f"MULTIROOT_{module}_IOC_") and getattr(lib, name) not in CLAIMS
]
Answers = Counter[str]


def call(fd: int, request: int, raw: bytearray) -> str:
    try:
        fcntl.ioctl(fd, request, raw)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def small(rng: random.Random) -> int:
    return rng.choice((0, 1, 2, 3, 4, 7, 8, 1 << 16, 1 << 31, (1 << 32) - 1, rng.getrandbits(32)))


def any_ioctl(device: Device, rng: random.Random) -> str:
    raw = bytearray(struct.pack("I", rng.choice(SIZES)) + rng.randbytes(252)).ljust(ROOM, b"\0")
    return call(device.fd, vfio(rng.randrange(100, 126)), raw)


def interrupts(device: Device, rng: random.Random) -> str:
    index, start, count = (
        rng.choice((0, 1, MSIX, 3, 4, 5, small(rng))),
        small(rng),
        rng.choice((1, 2, small(rng))),
    )
    flags = 1 << rng.randrange(3) | 1 << rng.randrange(3, 6) if rng.random() < 0.9 else small(rng)
    fds = [rng.choice((*device.events, -1, -2, 0, 1 << 30)) for _ in range(8)]
    raw = bytearray(
        struct.pack("IIIII8i", rng.choice((20, 28, 52, *SIZES)), flags, index, start, count, *fds)
    )
    return call(device.fd, vfio(SET_IRQS), raw.ljust(ROOM, b"\0"))


def migrate(device: Device, rng: random.Random) -> str:
    """A state that may be none; whoever gets a file reads and writes it."""
    raw = bytearray(struct.pack("IIIi", 16, STATE | SET, rng.choice((*range(9), small(rng))), -1))
    answer = call(device.fd, vfio(FEATURE), raw)
    fd = struct.unpack_from("i", raw, FILE_AT)[0]
    if answer == "ok" and fd >= 0:
        for move in (lambda: os.write(fd, rng.randbytes(rng.randrange(20))), lambda: os.read(fd, 20)):
            try:
                move()
            except OSError as error:
                answer = errno.errorcode[error.errno]
        os.close(fd)
    return answer


def feature(device: Device, rng: random.Random) -> str:
    flags = rng.randrange(12) | rng.choice((0, 1 << 16, 1 << 17, 1 << 18, small(rng) & ~0xFFFF))
    raw = bytearray(struct.pack("II", rng.choice(SIZES), flags) + rng.randbytes(64)).ljust(ROOM, b"\0")
    return call(device.fd, vfio(FEATURE), raw)


def ours(device: Device, rng: random.Random) -> str:
    name, request = rng.choice(OURS)
    if rng.random() < 0.2:
        request ^= 1 << rng.randrange(32)
    if request in CLAIMS:
        return "left out"
    fd = os.open(name, os.O_RDWR)
    answer = call(fd, request, bytearray(rng.randbytes(ROOM)))
    os.close(fd)
    return answer


def fuzz(device: Device, seed: int, rounds: int) -> dict[str, Answers]:
    rng = random.Random(seed)
    answers: dict[str, Answers] = {}
    for _ in range(rounds):
        way = rng.choice((any_ioctl, interrupts, interrupts, migrate, migrate, feature, ours))
        answers.setdefault(way.__name__, Counter())[way(device, rng)] += 1
    return answers


def main(address: str, rounds: int, seed: int) -> None:
    Functions().bind(address)
    device = Device(address)
    with ThreadPoolExecutor(THREADS) as threads:
        parts = [threads.submit(fuzz, device, seed + number, rounds) for number in range(THREADS)]
        answers: dict[str, Answers] = {}
        for part in parts:
            for name, counts in part.result().items():
                answers.setdefault(name, Counter()).update(counts)
    device.reopen()
    device.interrupts(True)
    device.state(STOP)
    device.state(RUNNING)
    device.interrupts(False)
    answers["events"] = Counter({"ok": VECTORS})
    sys.stdout.write(json.dumps(answers))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
