# SPDX-License-Identifier: GPL-2.0-or-later
"""Ending a root in order: services, processes, drivers; it can be taken back until the kernel itself ends."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiroot import json_files, proc
from multiroot.errors import ConflictError, MultirootError
from multiroot.launch import guard
from multiroot.processes import parent_of, send, wait_end

log = logging.getLogger("multirootd")

TERM_S = 5.0  # a process may take so long to end by itself
KILL_S = 5.0  # and so long to end when it is killed
UNBIND_S = 20.0  # a driver may take so long to let a device go
BIND_S = 5.0  # and so long to take it again, before the root goes on without
_COMMAND = 4  # PCI configuration: command register, bus mastering is bit 2
_BUS_MASTER = 1 << 2
_BRIDGE_CLASS = 0x06
_NAME = re.compile(r"[0-9A-Za-z_][ -.0-~]{0,99}")  # of a function or driver: a part of a path below /sys
_PROBE = (
    "each device gets a driver again by "
    "`for d in /sys/bus/pci/devices/*; do echo ${d##*/} > /sys/bus/pci/drivers_probe; done`"
)


@dataclass(frozen=True)
class Bound:
    """A PCI function, by its address, and the driver it had."""

    function: str
    driver: str


def processes(proc_dir: Path = Path("/proc"), keep: Iterable[int] = ()) -> dict[int, str]:
    """All processes with a program, by pid, but init, this one and its parents, and those in `keep`."""
    spared = {1, *keep, *_ancestors(proc_dir, os.getpid())}
    found = {}
    for entry in proc_dir.iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        # It may end while we look; kernel threads have no command line.
        with suppress(OSError):
            if (entry / "cmdline").read_bytes():
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def _ancestors(proc_dir: Path, pid: int) -> set[int]:
    chain = set()
    while pid > 0:
        chain.add(pid)
        pid = parent_of(pid, proc_dir)
    return chain


def end_processes(root: int, keep: Collection[int] = ()) -> None:
    """End every process but init, our own and those in `keep`; ConflictError names those that will not die.

    Raises OwnsVmsError, having ended none, when this root, number `root`, owns a VM.
    """
    guard.check_own_end(root)
    # A shell on a console ends by the hangup alone.
    for numbers, seconds in (((signal.SIGHUP, signal.SIGTERM), TERM_S), ((signal.SIGKILL,), KILL_S)):
        left = processes(keep=keep)
        for pid in left:
            send(pid, *numbers)
        until = time.monotonic() + seconds
        for pid in left:
            wait_end(pid, max(until - time.monotonic(), 0))
    left = processes(keep=keep)
    if left:
        names = ", ".join(f"{name} ({pid})" for pid, name in sorted(left.items()))
        raise ConflictError(
            f"these processes do not end: {names}", "the root goes on; see what they wait for"
        )


def bound_functions(sys: Path = Path("/sys")) -> tuple[Bound, ...]:
    """PCI functions with a driver, devices before the bridges they are behind."""
    found = []
    for function in sorted((sys / "bus/pci/devices").glob("*"), reverse=True):
        driver = function / "driver"
        if driver.exists():
            bridge = int((function / "class").read_text(), 16) >> 16 == _BRIDGE_CLASS
            found.append((bridge, Bound(function.name, driver.resolve().name)))
    return tuple(bound for _, bound in sorted(found, key=lambda each: each[0]))


def unbind_all(record: Path, sys: Path = Path("/sys"), seconds: float = UNBIND_S) -> tuple[Bound, ...]:
    """Take every PCI function from its driver and stop its DMA; returns what was bound.

    The file `record` says what was bound, before anything is changed: `bind_again` works after a restart of
    the agent, too. ConflictError names the driver that does not let go; those before it have their devices
    back then.
    """
    done: list[Bound] = []
    functions = bound_functions(sys)
    json_files.write(record, [[bound.function, bound.driver] for bound in functions])
    for bound in functions:
        switch = sys / f"bus/pci/drivers/{bound.driver}/unbind"
        try:
            _begin(switch, bound.function).result(seconds)
            _stop_dma(sys / f"bus/pci/devices/{bound.function}/config")
        except (OSError, FutureTimeout) as error:
            bind_all(done, sys)
            reason = getattr(error, "strerror", None) or f"not within {seconds:g} s"
            raise ConflictError(
                f"driver {bound.driver} does not let go of {bound.function}: {reason}", "see the kernel log"
            ) from error
        done.append(bound)
    return tuple(done)


def bind_all(functions: Iterable[Bound], sys: Path = Path("/sys"), seconds: float = BIND_S) -> None:
    """Give functions back to their drivers; what fails is logged, for an error led here already.

    One that its driver has not let go yet is given back as soon as it has. Waits `seconds` at most.
    """
    begun = [
        (bound, _begin(sys / f"bus/pci/drivers/{bound.driver}/bind", bound.function)) for bound in functions
    ]
    until = time.monotonic() + seconds
    for bound, written in begun:
        try:
            written.result(max(until - time.monotonic(), 0))
        except FutureTimeout:
            log.warning("%s goes back to driver %s when that has let go of it", bound.function, bound.driver)
        except OSError as error:
            log.error("%s did not go back to driver %s: %s", bound.function, bound.driver, error.strerror)


def bind_again(record: Path, sys: Path = Path("/sys"), seconds: float = BIND_S) -> None:
    """Give the functions in `record` that have no driver back to the one they had, if there is a record.

    The kernel says "no driver" of a function from the begin of its unbinding on, so that this includes one
    whose driver is still at it. A record that is damaged is logged, for the root goes on without them, too.
    """
    try:
        functions = json_files.read(record, list, _bound, _PROBE)
    except MultirootError as error:
        log.error("devices stay without a driver: %s", error)
        return
    if functions is None:
        return
    free = [each for each in functions if not (sys / f"bus/pci/devices/{each.function}/driver").exists()]
    bind_all(free, sys, seconds)
    record.unlink()


def _bound(data: list[Any]) -> list[Bound]:
    """What `unbind_all` has written; raises TypeError or ValueError for anything else."""
    pairs = [(function, driver) for function, driver in data]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for pair in pairs for name in pair):
        raise ValueError("it is no list of functions and drivers")
    return [Bound(function, driver) for function, driver in pairs]


def _begin(path: Path, text: str) -> Future[None]:
    """Write to sysfs in a thread, for that may block for ever. No exit of the agent waits for it."""
    written: Future[None] = Future()

    def write() -> None:
        try:
            path.write_text(text)
        except OSError as error:
            written.set_exception(error)
        else:
            written.set_result(None)

    threading.Thread(target=write, daemon=True).start()
    return written


def _stop_dma(config: Path) -> None:
    with config.open("r+b", buffering=0) as file:
        file.seek(_COMMAND)
        command = int.from_bytes(file.read(2), "little")
        file.seek(_COMMAND)
        file.write((command & ~_BUS_MASTER).to_bytes(2, "little"))


def services(program: Path, verb: str) -> None:
    """Let the system stop or start what it runs beside the agent; nothing when it has no such program."""
    if program.exists():
        proc.run([program, verb], timeout=60)


def end_kernel(root: int) -> None:
    """End this root's kernel; does not return while another root is alive. Raises MultirootError.

    `root` is this root's number; OwnsVmsError when it owns a VM.
    """
    guard.check_own_end(root)
    os.sync()
    proc.run(["busybox", "reboot", "-f"], timeout=60)
    raise MultirootError("the kernel did not end", "see its console")
