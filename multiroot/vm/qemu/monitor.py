# SPDX-License-Identifier: GPL-2.0-or-later
"""A second QMP connection to a waiting QEMU, for one thread that blocks on it.

What an event loop does between a byte that arrives and the coroutine that waits for it costs milliseconds,
and the guest stands still meanwhile. A thread that blocks in recv() is woken by the kernel alone.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.errors import CommandError
from multiroot.vm.vmm import VmmGoneError

_CHUNK = 65536
# All of these are in the line that says that a device state was loaded. No text in JSON has such quotes.
_COMPLETED = (b'"event": "MIGRATION"', b'"status": "completed"')
_LONGEST = 16 << 20  # bytes of one message


class Monitor:
    """Blocking QMP; not for use from several threads at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._events: deque[dict[str, Any]] = deque()
        self._begun = ""
        self._switch: Switch | None = None

    def greet(self) -> None:
        """Wait for QEMU's greeting and leave negotiation; raises VmmGoneError if QEMU ends before."""
        self._receive()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command, its arguments named as QEMU names them, and return its answer.

        Raises CommandError with QEMU's own words when it refuses, VmmGoneError when it went away.
        """
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        return self._run(command, json.dumps(message).encode() + b"\n")

    def human(self, line: str) -> str:
        """Run a line of the human monitor and return what it says; raises what `execute` raises."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def begin(self, command: str) -> None:
        """Send a command but for its last byte: QEMU reads QMP byte by byte, with five system calls for each.

        Raises VmmGoneError when it went away.
        """
        self._send(command, json.dumps({"execute": command}).encode()[:-1])
        self._begun = command

    def take(self, switch: Switch, until: Step, loaded: Callable[[dict[str, Any]], None]) -> Outcome:
        """Bring `switch` to `until`; GONE gives QEMU the last byte of the command that was begun.

        `loaded` gets the event that says how the loading of a device state ended, and may raise. Raises
        VmmGoneError when QEMU ends before that.
        """
        self._switch = switch
        if switch.step is Step.BEGUN:
            for event in self._events:
                if _tells_the_end(event):
                    loaded(event)
                    switch.hear()
            switch.attach(self._sock.fileno(), _COMPLETED, b"}", self._buffer)
            self._buffer = b""
        heard = switch.step >= Step.HEARD
        while (outcome := switch.run(until)) is Outcome.SAID:
            event = _message(switch.line)
            if _tells_the_end(event):
                loaded(event)
                heard = True
                switch.hear()
            else:
                self._events.append(event)
        if outcome is Outcome.TOO_LONG:
            raise VmmGoneError("QEMU speaks no QMP", "what it said has no end")
        if outcome is Outcome.HUNG_UP and switch.step is Step.BEGUN:
            raise VmmGoneError("QEMU went away")
        if not heard:
            loaded(_message(switch.line))
        return outcome

    def finish(self) -> None:
        """After the step GONE, wait for the answer to the command that was begun; raises what `execute`
        raises.
        """
        assert self._switch
        self._buffer = self._switch.rest
        self._answer(self._begun)

    def _run(self, command: str, data: bytes) -> Any:
        self._send(command, data)
        return self._answer(command)

    def _answer(self, command: str) -> Any:
        try:
            while "event" in (answer := self._receive()):
                self._events.append(answer)
        except VmmGoneError as error:
            raise VmmGoneError(f"QEMU went away during {command}") from error
        if "error" in answer:
            raise CommandError(f"QEMU refused {command}: {_words(answer['error'])}")
        if "return" not in answer:
            raise VmmGoneError(f"QEMU did not answer {command}", "what it said is no QMP")
        return answer["return"]

    def _send(self, command: str, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise VmmGoneError(f"QEMU went away during {command}") from error

    def event(self, name: str, *statuses: str) -> dict[str, Any]:
        """The next event of that name, with one of these in its `status` if any are given; others are lost.

        Raises VmmGoneError when QEMU ends before.
        """
        while True:
            message = self._events.popleft() if self._events else self._receive()
            if message.get("event") != name:
                continue
            if not statuses or message.get("data", {}).get("status") in statuses:
                return message

    def close(self) -> None:
        """Once nobody waits any more."""
        self._sock.close()

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            try:
                data = self._sock.recv(_CHUNK)
            except OSError as error:
                raise VmmGoneError("QEMU went away") from error
            if not data:
                raise VmmGoneError("QEMU went away")
            self._buffer += data
            if len(self._buffer) > _LONGEST:
                raise VmmGoneError("QEMU speaks no QMP", f"it said {len(self._buffer)} bytes without an end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return _message(line)


def _message(line: bytes) -> dict[str, Any]:
    """One message of QEMU's; raises VmmGoneError for what is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise VmmGoneError("QEMU speaks no QMP", f"it said {line[:60]!r}") from error
    if not isinstance(message, dict) or not isinstance(message.get("data", {}), dict):
        raise VmmGoneError("QEMU speaks no QMP", f"it said {line[:60]!r}")
    return message


def _tells_the_end(event: dict[str, Any]) -> bool:
    """Of a migration."""
    status = event.get("data", {}).get("status")
    return event.get("event") == "MIGRATION" and status in ("completed", "failed")


def _words(error: Any) -> str:
    """QEMU's own words for why it refused."""
    return str(error.get("desc", error)) if isinstance(error, dict) else str(error)
