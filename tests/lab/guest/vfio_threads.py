# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a root, beside vfio_device.py: many threads at once on the VFIO file of a device with MSI-X, as a
VMM never would.

Arguments: ADDRESS ROUNDS. Prints one line of JSON.
"""

import errno
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from vfio_device import RESUMING, RUNNING, STOP, Device

from multiroot.passthrough.functions import Functions

STREAM, WRITERS = 16, 4


def written(fd: int) -> int:
    """How many of so many bytes are taken."""
    try:
        return os.write(fd, b"x" * (STREAM // 2 + 1))
    except OSError:
        return 0


def refusal(device: Device) -> int:
    """The error with which resuming does not end, 0: it does."""
    try:
        device.state(STOP)
    except OSError as error:
        return error.errno
    return 0


def streams(device: Device, threads: ThreadPoolExecutor, rounds: int) -> int:
    """The most that a stream of 16 bytes took from several writers at once."""
    most = 0
    for _ in range(rounds):
        device.state(STOP)
        fd = device.state(RESUMING)
        most = max(most, sum(threads.map(written, [fd] * WRITERS)))
        for _ in range(2):
            assert refusal(device) == errno.EINVAL, "it is not whole"
        os.close(fd)
        device.reopen()
    return most


def turn(device: Device, rounds: int) -> int:
    for on in (True, False) * rounds:
        with suppress(OSError):  # another thread has turned them off
            device.interrupts(on)
    return rounds


def stop_and_go(device: Device, rounds: int) -> int:
    for _ in range(rounds):
        device.state(STOP)
        device.state(RUNNING)
    return rounds


def main(address: str, rounds: int) -> None:
    Functions().bind(address)
    device = Device(address)
    with ThreadPoolExecutor(WRITERS) as threads:
        most = streams(device, threads, rounds)
        device.interrupts(True)
        device.interrupts(False)
        turns = [threads.submit(work, device, rounds) for work in (turn, stop_and_go, turn, stop_and_go)]
        done = [each.result() for each in turns]
    sys.stdout.write(json.dumps({"most": most, "turns": done}))


main(sys.argv[1], int(sys.argv[2]))
