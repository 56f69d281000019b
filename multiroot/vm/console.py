# SPDX-License-Identifier: GPL-2.0-or-later
"""The console keeper: one small process per VM that owns the guest's serial port.

Runs on its own (python -I -S console.py ...), with the standard library alone, because what it stamps is
how the blackout is measured from outside: nothing else that the agent does may delay it.

What the guest writes is appended to a file, per read a record of (CLOCK_MONOTONIC_RAW ns, offset, length) and
then the bytes; multiroot.vm.history reads it. QEMU passes on byte by byte, so a read waits a moment for
more (GATHER_S); its time is that of the first byte. It is also sent on to whoever connects to the listening
socket, and their input is passed to the guest. A client first gets the offset at which its live bytes
begin, 8 bytes; what lies before is in the file.

A line that says what no device of the guest's tells (SIGNS) is kept in a file of its own, *.told, the newest
of them: `at_ns`, a space, the line. Whoever looks for one need not read the guest's whole output.

Offsets count from the guest's first byte. A file that has reached SEGMENT bytes is renamed to *.1 (which
replaces the one before), so that a chatty guest does not fill the memory that /run lives in. The keeper
ends when QEMU closes the port.
"""

import contextlib
import os
import select
import socket
import struct
import sys
import time

RECORD = struct.Struct("<QQI")  # CLOCK_MONOTONIC_RAW ns, offset of the first byte, length
START = struct.Struct("<Q")
SEGMENT = 4 << 20
GATHER_S = 0.003  # what an emulated UART needs for a short line
# A kernel's words when memory has run out (mm/oom_kill.c), and when it panics (kernel/panic.c).
SIGNS = (b": Killed process ", b"Kernel panic - not syncing")
TOLD_SUFFIX = ".told"
TOLD_MOST = 32  # lines
_LINE_MOST = 400  # bytes of a line that are looked at, from its end
_READ_SIZE = 1 << 16
_PRIORITY = -15


class Log:
    """The file, kept to two segments."""

    def __init__(self, path: str, segment: int = SEGMENT) -> None:
        self._path = path
        self._segment = segment
        self._written = 0
        self.end = 0
        self._fd = self._open()

    def append(self, data: bytes, at_ns: int) -> None:
        """Add bytes that came at `at_ns`."""
        self._written += os.writev(self._fd, (RECORD.pack(at_ns, self.end, len(data)), data))
        self.end += len(data)
        if self._written >= self._segment:
            os.close(self._fd)
            os.rename(self._path, self._path + ".1")  # noqa: PTH104 - pathlib costs start-up time
            self._written = 0
            self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


class Told:
    """The file with lines that have one of SIGNS in them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: list[bytes] = []
        self._rest = b""

    def look(self, data: bytes, at_ns: int) -> None:
        """At what came at `at_ns`. A line counts once it has ended."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LINE_MOST:]
        found = [line[-_LINE_MOST:] for line in lines if any(sign in line for sign in SIGNS)]
        if found:
            self._kept += [b"%d %s\n" % (at_ns, line) for line in found]
            del self._kept[:-TOLD_MOST]
            self._write()

    def _write(self) -> None:
        """In one step: it is read at any time."""
        new = self._path + ".new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.writev(fd, self._kept)
        finally:
            os.close(fd)
        os.rename(new, self._path)  # noqa: PTH104 - pathlib costs start-up time


class Keeper:
    """The loop around one serial port."""

    def __init__(self, serial: socket.socket, listener: socket.socket, log: Log, told: Told) -> None:
        self._serial = serial
        self._listener = listener
        self._log = log
        self._told = told
        self._clients: dict[int, socket.socket] = {}
        self._poll = select.poll()
        for each in (serial, listener):
            self._poll.register(each, select.POLLIN)

    def run(self) -> None:
        """Serve until QEMU closes the port."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._serial.fileno():
                    if not self._from_guest():
                        return
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd in self._clients:
                    self._from_client(self._clients[fd])

    def _from_guest(self) -> bool:
        at_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        # Not an event to wait for: whether more comes nobody knows. Without it all VMs' keepers together
        # take as much of the CPUs as a guest.
        time.sleep(GATHER_S)
        try:
            data = self._serial.recv(_READ_SIZE)
        except ConnectionResetError:
            return False
        if not data:
            return False
        self._log.append(data, at_ns)
        for client in tuple(self._clients.values()):
            self._send(client, data)
        self._told.look(data, at_ns)
        return True

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._poll.register(client, select.POLLIN)
        self._send(client, START.pack(self._log.end))

    def _send(self, client: socket.socket, data: bytes) -> None:
        """A client too slow to keep up is dropped rather than waited for."""
        try:
            if client.send(data) == len(data):
                return
        except OSError:
            # Full or gone: the same to us.
            self._drop(client)
            return
        self._drop(client)

    def _from_client(self, client: socket.socket) -> None:
        try:
            data = client.recv(_READ_SIZE)
        except OSError:
            data = b""
        if data:
            with contextlib.suppress(OSError):
                self._serial.sendall(data)
        else:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        if self._clients.pop(client.fileno(), None) is not None:
            self._poll.unregister(client)
            client.close()


def main(arguments: list[str]) -> None:
    """SERIAL_FD LISTEN_FD FILE"""
    serial, listener = (socket.socket(fileno=int(fd)) for fd in arguments[:2])
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    Keeper(serial, listener, Log(arguments[2]), Told(arguments[2] + TOLD_SUFFIX)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
