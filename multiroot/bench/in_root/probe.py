# SPDX-License-Identifier: GPL-2.0-or-later
"""What `bench link` runs in a root: one end that answers, one that asks and prints what it saw as JSON.

python3 -m multiroot.bench.in_root.probe serve ADDRESS        # prints its pid when it listens, and stays
python3 -m multiroot.bench.in_root.probe network ADDRESS
python3 -m multiroot.bench.in_root.probe doorbell
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import closing
from pathlib import Path

from multiroot import bugs

PORT = 7101
PINGS = 300
MESSAGE = 64  # bytes of a ping
STREAM_S = 2.0
CHUNK = 1 << 18
RINGS = 500
LOST_S = 5.0  # a doorbell that is not answered by then is lost
_PING, _STREAM = b"p", b"s"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def busy_ns(stat: Path = Path("/proc/stat")) -> int:
    """CPU time that all of this root's CPUs spent on something (proc(5): all but idle and iowait)."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) * 10**9 // _CLOCK_TICKS


def listen(address: str, port: int = PORT) -> socket.socket:
    """A socket that takes connections."""
    return socket.create_server((address, port), backlog=1)


def serve_one(server: socket.socket) -> None:
    """One connection: pings come back; a stream is thrown away, its end answered by what was seen of it."""
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connection.recv(1) == _PING:
            while message := _exactly(connection, MESSAGE):
                connection.sendall(message)
            return
        before, taken, buffer = busy_ns(), 0, bytearray(CHUNK)
        while size := connection.recv_into(buffer):
            taken += size
        answer = {"bytes": taken, "busy_ns": busy_ns() - before}
        connection.sendall(json.dumps(answer).encode())


def ping(address: str, count: int = PINGS) -> list[int]:
    """Round trips of a message, one after the other, ns each."""
    with _connect(address, _PING) as connection:
        message = bytes(MESSAGE)
        trips = []
        for _ in range(count):
            before = time.monotonic_ns()
            connection.sendall(message)
            if not _exactly(connection, MESSAGE):
                raise ConnectionError("the other end went away")
            trips.append(time.monotonic_ns() - before)
    return trips


def stream(address: str, seconds: float = STREAM_S) -> dict[str, int]:
    """Send for so long; bytes that arrived, ns until that was known, CPU time of both ends."""
    chunk = bytes(CHUNK)
    with _connect(address, _STREAM) as connection:
        before, began = busy_ns(), time.monotonic_ns()
        while time.monotonic_ns() - began < seconds * 1e9:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(4096):
            answer += part
        took, here = time.monotonic_ns() - began, busy_ns() - before
    there = json.loads(answer)
    return {"bytes": there["bytes"], "took_ns": took, "here_ns": here, "there_ns": there["busy_ns"]}


def doorbell(count: int = RINGS) -> list[int]:
    """From ringing the new root until its interrupt handler has counted it, ns each; no process is woken."""
    from multiroot.device.handle import Device
    from multiroot.device.uapi import Event, PeerIndex

    trips = []
    with Device() as device:
        theirs = device.control(PeerIndex.CHILD).theirs
        for _ in range(count):
            seen, before = theirs.rings, time.monotonic_ns()
            device.ring(PeerIndex.CHILD, Event.USER)
            while theirs.rings == seen:
                if time.monotonic_ns() - before > LOST_S * 1e9:
                    raise TimeoutError("the new root did not take an interrupt")
            trips.append(time.monotonic_ns() - before)
    return trips


def _connect(address: str, kind: bytes) -> socket.socket:
    connection = socket.create_connection((address, PORT), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(kind)
    return connection


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or none when the other end has closed."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data


def _serve(address: str) -> None:
    with closing(listen(address)) as server:
        child = os.fork()
        if child:
            sys.stdout.write(f"{child}\n")
            return
        # Whoever started us waits for the end of what it can read.
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        while True:
            serve_one(server)


def main(words: list[str]) -> None:
    """See the module's docstring."""
    match words:
        case ["serve", address]:
            _serve(address)
        case ["network", address]:
            sys.stdout.write(json.dumps({"rtt_ns": ping(address), "stream": stream(address)}) + "\n")
        case ["doorbell"]:
            sys.stdout.write(json.dumps({"doorbell_ns": doorbell()}) + "\n")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    with bugs.one_line("probe"):
        main(sys.argv[1:])
