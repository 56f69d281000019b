# SPDX-License-Identifier: GPL-2.0-or-later
"""The network namespace of the guests: their bridge, their taps and their link to other roots.

No server of this root is in it. So a guest reaches nothing of a root, whatever address it asks for and
whatever listens there. VMMs are in it, for what they connect with: the servers of disks.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from multiroot import proc
from multiroot.errors import MultirootError

NAME = "mrguests"
FOLDER = Path("/run/netns")  # where ip-netns(8) keeps its namespaces
PATH = FOLDER / NAME
EXEC = ("ip", "netns", "exec", NAME)  # runs the program that follows in it

_CLONE_NEWNET = 0x40000000
_OURS = Path("/proc/thread-self/ns/net")
# Once: each has classes of its own, and every handoff enters the namespace.
_LIBC = ctypes.CDLL(None, use_errno=True)


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection from the guests' network, as VMMs have; from this process's own where there is none.

    `host` is an address. Raises OSError; MultirootError when this user may not enter the namespace.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with entered() if os.path.ismount(PATH) else nullcontext():
        made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout)
        made.connect((host, port))
    except BaseException:
        made.close()
        raise
    return made


def make() -> None:
    """Make the namespace if it is not there. It outlives this process, and what is in it does, too."""
    if os.path.ismount(PATH):
        return
    PATH.unlink(missing_ok=True)  # left by somebody who was stopped half-way
    proc.run(["ip", "netns", "add", NAME])


def route_by(gateway: str) -> None:
    """All that is not in the guests' network goes by this address there. Raises CommandError."""
    proc.run(["ip", "-n", NAME, "route", "replace", "default", "via", gateway])


@contextmanager
def entered(path: Path = PATH) -> Iterator[None]:
    """While it lasts, what this thread opens belongs to the namespace. Do not wait for anything inside.

    Raises MultirootError when there is no such namespace or this user may not enter it.
    """

    def enter(fd: int) -> None:
        if _LIBC.setns(fd, _CLONE_NEWNET):
            raise MultirootError(
                f"cannot enter the network namespace {path}: {os.strerror(ctypes.get_errno())}"
            )

    ours = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            theirs = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MultirootError(f"cannot open the network namespace {path}: {error.strerror}") from error
        try:
            enter(theirs)
        finally:
            os.close(theirs)
        try:
            yield
        finally:
            enter(ours)
    finally:
        os.close(ours)
