# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a lab root: bad input to every ioctl of /dev/multiroot, by one thread and by several at once,
then a valid sequence. Prints JSON.

No CPU is offline while it fuzzes, so nothing can be granted, and no start can get as far as a SIPI.
Arguments: carve base and size (bytes, reserved at boot), a CPU to take offline at the end, a seed, rounds.
"""

import errno
import json
import os
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from multiroot.device.errors import ClaimError
from multiroot.device.handle import Device
from multiroot.device.uapi import SHARED_SIZE, CpuState, Event, PeerIndex, ffi, lib
from multiroot.errors import ConflictError, MultirootError

ROUNDS = int(sys.argv[5])
THREADS = 3
LOW, LOW_SIZE = 0x20000, 0x20000
STRUCTS = {
    "INFO": "info",
    "CLAIM": None,
    "CARVE": "carve",
    "UNCARVE": None,
    "WRITE": "segment",
    "READ": "segment",
    "FIND": "find",
    "CPU_GET": "cpu",
    "CPU_GRANT": "cpu",
    "CPU_START": "cpu_start",
    "CPU_RECLAIM": "cpu",
    "DOORBELL": "doorbell",
    "RING": "ring",
    "INHERIT": None,
    "CPU_ADOPT": "cpu",
    "MEMORY": "memory",
    "PCI_ADOPT": "pci",
}
REFUSALS = {"EINVAL", "EBUSY", "EPERM", "EFAULT", "ENOENT", "ENOTTY", "EBADF", "ENODEV", "ERANGE"}


def call(fd, request, argument):
    """Name of the errno, or "ok"."""
    result = lib.ioctl(fd, request, ffi.cast("void *", argument))
    return "ok" if result >= 0 else errno.errorcode[ffi.errno]


def fill(rng, raw, interesting):
    """Random values in every field; some of the worst ones on purpose."""
    for name, field in ffi.typeof(raw).item.fields:
        bits = 8 * ffi.sizeof(field.type)
        value = rng.choice((*interesting, rng.getrandbits(bits), rng.getrandbits(12))) & ((1 << bits) - 1)
        setattr(
            raw, name, value - (1 << bits) if field.type.cname == "int" and value >> (bits - 1) else value
        )


def fuzz(fd, rng, interesting, skip=()):
    """Answers by ioctl."""
    answers = {name: Counter() for name in STRUCTS}
    for _ in range(ROUNDS):
        name = rng.choice([each for each in STRUCTS if each not in skip])
        request = getattr(lib, f"MULTIROOT_IOC_{name}")
        raw = ffi.new(f"struct multiroot_{STRUCTS[name]} *") if STRUCTS[name] else ffi.new("char *")
        if STRUCTS[name]:
            fill(rng, raw, interesting)
        if name == "CARVE" and rng.random() < 0.1:  # so that what needs a carve is reached as well
            raw.base, raw.size, raw.low_base, raw.low_size = interesting[4], interesting[6], LOW, LOW_SIZE
            raw.shared = raw.base + SHARED_SIZE
        pointer = rng.choice(
            (raw, raw, raw, raw, ffi.cast("void *", rng.choice((0, 1, 1 << 46, (1 << 64) - 8))))
        )
        answers[name][call(fd, request, pointer)] += 1
    for _ in range(ROUNDS // 4):
        request = rng.getrandbits(32)
        if request not in {getattr(lib, f"MULTIROOT_IOC_{name}") for name in STRUCTS}:
            answers.setdefault("unknown", Counter())[call(fd, request, ffi.new("char[4096]"))] += 1
    return answers


def come_and_go(times):
    """Open the device, map the control page of whoever may be there, and close it again."""
    for _ in range(times):
        with Device() as device, suppress(MultirootError):
            device.control(PeerIndex.CHILD)


def fuzz_together(fd, rng, interesting):
    """What several threads on one file were answered, while others come and go."""
    with ThreadPoolExecutor(THREADS + 1) as pool:
        crowd = [
            pool.submit(fuzz, fd, random.Random(rng.getrandbits(32)), interesting) for _ in range(THREADS)
        ]
        coming = pool.submit(come_and_go, ROUNDS // 4)
        coming.result()
        return [each.result() for each in crowd]


def refused(kind, action):
    """True when `action` raises `kind`."""
    try:
        action()
    except kind:
        return True
    return False


def online(cpu, value):
    Path(f"/sys/devices/system/cpu/cpu{cpu}/online").write_text(str(value))


def valid_sequence(base, size, cpu):
    """All that a coordinator does but the start; the names of what did not go as it should."""
    wrong = []

    def must(name, held):
        if not held:
            wrong.append(name)

    with Device() as device, Device() as other:
        device.claim()
        must("second claim refused", refused(ClaimError, other.claim))
        must("carve without claim refused", refused(ClaimError, other.uncarve))
        carve = {"low_base": LOW, "low_size": LOW_SIZE, "shared": base + SHARED_SIZE}
        device.carve(base, size, **carve)
        must("second carve refused", refused(ConflictError, lambda: device.carve(base, size, **carve)))
        device.write_segment(base, b"\xa5" * 12345)
        device.write_segment(LOW, b"\x5a" * 4096)
        device.write_segment(base + 16384, b"\0" * 4096 + b"searched")
        word = int.from_bytes(b"searched", "little")
        must("a word is found", other.find_word(base + 16384, 8192, word) == base + 20480)
        must("a word that is not there", other.find_word(base + 16384, 4096, word) == 0)
        must("what was written is read", other.read_memory(base, 12345) == b"\xa5" * 12345)
        must(
            "shared area not read", refused(MultirootError, lambda: device.read_memory(base + SHARED_SIZE, 1))
        )
        must("online CPU refused", refused(ConflictError, lambda: device.grant(cpu)))
        must("boot CPU refused", refused(ConflictError, lambda: device.grant(0)))
        online(cpu, 0)
        must("granted", device.grant(cpu).state is CpuState.GRANTED)
        must("online vetoed", refused(OSError, lambda: online(cpu, 1)))
        must("uncarve refused while granted", refused(ConflictError, device.uncarve))
        must("ledger names the new root", device.ledger().cpus[device.cpu(cpu).hardware_id].root > 1)
        must("reclaimed", device.reclaim(cpu).state is CpuState.OFFLINE)
        online(cpu, 1)
        page = device.control(PeerIndex.CHILD)
        must("peer absent", page.theirs.state == 0)
        must("uncarve refused while mapped", refused(ConflictError, device.uncarve))
        device.close_control(PeerIndex.CHILD)
        device.uncarve()
        must("no peer to ring", refused(MultirootError, lambda: device.ring(PeerIndex.CHILD, Event.USER)))
        must("nothing carved", not device.info().carved)
    return wrong


def main():
    base, size, cpu, seed = (int(word, 0) for word in sys.argv[1:5])
    rng = random.Random(seed)
    interesting = (
        0,
        1,
        4095,
        4096,
        base,
        base + size,
        size,
        LOW,
        0x10000,
        1 << 63,
        (1 << 64) - 1,
        (1 << 64) - 4096,
    )
    fd = os.open("/dev/multiroot", os.O_RDWR)
    unclaimed = fuzz(fd, rng, interesting, skip=("CLAIM",))
    call(fd, lib.MULTIROOT_IOC_CLAIM, ffi.NULL)
    claimed = fuzz(fd, rng, interesting)
    crowd = fuzz_together(fd, rng, interesting)
    call(fd, lib.MULTIROOT_IOC_UNCARVE, ffi.NULL)
    os.close(fd)
    parts = (unclaimed, claimed, *crowd)
    seen = {answer for part in parts for counts in part.values() for answer in counts}
    report = {
        "unclaimed": unclaimed,
        "claimed": claimed,
        "unexpected": sorted(seen - REFUSALS - {"ok"}),
        "wrong": valid_sequence(base, size, cpu),
    }
    sys.stdout.write(json.dumps(report))


main()
