# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's console on this terminal."""

from __future__ import annotations

import os
import queue
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from multiroot.cli.agent import connect
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

LEAVE = b"\x1d"  # Ctrl-]


def attach(name: str, root: str | None, *, history: bool, follow: bool) -> None:
    """Copy the VM's output to stdout and, from a terminal, keys to the VM, until either side ends."""
    requests: queue.SimpleQueue[vm_pb2.ConsoleRequest | None] = queue.SimpleQueue()
    requests.put(vm_pb2.ConsoleRequest(name=name, history=history, kept_only=not follow))
    with connect(root) as channel, _raw_terminal(follow) as interactive:
        call = vm_pb2_grpc.VmServiceStub(channel).Console(iter(requests.get, None))
        left = threading.Event()

        def leave() -> None:
            left.set()
            call.cancel()

        if interactive:
            threading.Thread(target=_type, args=(requests, leave), daemon=True).start()
        try:
            for response in call:
                sys.stdout.buffer.write(response.output)
                sys.stdout.buffer.flush()
        except grpc.RpcError:
            # An agent can cancel a call, too.
            if not left.is_set():
                raise
        finally:
            call.cancel()
            requests.put(None)


def _type(requests: queue.SimpleQueue[vm_pb2.ConsoleRequest | None], leave: Callable[[], object]) -> None:
    while data := os.read(sys.stdin.fileno(), 1024):
        typed, left, _ = data.partition(LEAVE)
        if typed:
            requests.put(vm_pb2.ConsoleRequest(input=typed))
        if left:
            break
    leave()


@contextmanager
def _raw_terminal(wanted: bool) -> Iterator[bool]:
    """Every key goes to the guest; yields whether there is a terminal at all."""
    if not (wanted and sys.stdin.isatty()):
        yield False
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
