# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest lets be seen while it comes up: new lines on its console."""

from __future__ import annotations

import queue
import re
import threading
from contextlib import AbstractContextManager, suppress

import grpc

from multiroot.cli.agent import connect
from multiroot.errors import MultirootError

_AGAIN_S = 1.0  # an agent that has gone is called again so often
_REST_MOST = 400  # characters of a line that has not ended
# Lines that are told apart; a guest that has said more different ones than a boot has is not coming up.
_SHAPES_MOST = 20_000
_ORDER = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.")  # to a terminal (ECMA-48)
_LINE_END = re.compile(r"[\r\n]+")
_NUMBER = re.compile(r"\b[0-9a-f]+\b|\d+", re.IGNORECASE)


class Signs(AbstractContextManager["Signs"]):
    """Follows the console of a VM in the body of `with`, also to other roots.

    A line is a sign if no line was like it before but for its numbers: a guest that counts on its console has
    long been up, and so has one that says again and again that something failed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.last = ""  # line that it said
        self._rest = ""
        self._seen: set[str] = set()
        self._news = threading.Event()
        self._left = threading.Event()
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._follow, name="console", daemon=True)

    def __enter__(self) -> Signs:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left.set()
        if call := self._call:
            call.cancel()

    def wait(self, seconds: float) -> bool:
        """Whether there was a sign since this was asked last, or is one within so many seconds."""
        seen = self._news.wait(seconds)
        self._news.clear()
        return seen

    def hear(self, output: bytes) -> None:
        """Take in what the guest says."""
        *lines, rest = _LINE_END.split(self._rest + output.decode(errors="replace"))
        self._rest = rest[-_REST_MOST:]
        for line in lines:
            self._hear_line(_ORDER.sub("", line).strip())

    def _hear_line(self, line: str) -> None:
        if not line:
            return
        self.last = line
        shape = _NUMBER.sub("#", line)
        if shape not in self._seen and len(self._seen) < _SHAPES_MOST:
            self._seen.add(shape)
            self._news.set()

    def _follow(self) -> None:
        while not self._left.is_set():
            # What is the matter with an agent is told by those who ask it for more.
            with suppress(grpc.RpcError, MultirootError):
                self._read()
            self._left.wait(_AGAIN_S)

    def _read(self) -> None:
        from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

        requests: queue.SimpleQueue[vm_pb2.ConsoleRequest | None] = queue.SimpleQueue()
        requests.put(vm_pb2.ConsoleRequest(name=self._name))
        with connect() as channel:
            call = vm_pb2_grpc.VmServiceStub(channel).Console(iter(requests.get, None))
            self._call = call
            try:
                for response in call:
                    if self._left.is_set():
                        return
                    self.hear(response.output)
            finally:
                call.cancel()
                requests.put(None)
