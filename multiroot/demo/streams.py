# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest does for those outside, all the time, and what they see of it: one SSH session, one SQL
connection, pings, a disk that is written and read back.

Each is begun once and never again: if a connection breaks, that is what was seen.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from multiroot import proc
from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.lab.forwards import HOST

USER = "debian"
PING_S = 0.01
STEP_S = 0.05  # between two lines of the session
# Kept in the guest, where nothing else is.
_FILE, _STOP = "/var/tmp/multiroot-fio", "/var/tmp/multiroot-stop"
# A program of the guest: a block goes to the disk itself, comes back from it, and is told.
_BLOCKS = f"""
import mmap, os, time
disk = os.open("/var/tmp/multiroot-block", os.O_RDWR | os.O_CREAT | os.O_DIRECT | os.O_DSYNC)
block, number = mmap.mmap(-1, 4096), 0
while True:
    number += 1
    kept = number.to_bytes(8, "little") * 512
    block[:] = kept
    os.pwrite(disk, block, 0)
    block[:] = bytes(4096)
    os.preadv(disk, [block], 0)
    print(number if block[:] == kept else "not", time.monotonic(), flush=True)
    time.sleep({STEP_S})
"""
_PING = re.compile(rb"\[(\d+\.\d+)\] .*icmp_seq=(\d+) ")


@dataclass(frozen=True)
class Login:
    """How to log in to a guest: a forwarded port, the private key, the file of keys of known hosts."""

    port: int
    key: Path
    known: Path

    def argv(self, command: str) -> list[str]:
        """The ssh command that runs `command` there."""
        options = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.known),
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            # Silence is what is looked at here, and no reason to give up.
            "ServerAliveInterval": "0",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        where = [f"{USER}@{HOST}", "-p", str(self.port)]
        return ["ssh", "-F", "none", "-i", str(self.key), *words, *where, command]

    def run(self, command: str, *, timeout: float = 300) -> str:
        """What it prints; raises CommandError unless it ends with 0."""
        return proc.run(self.argv(command), timeout=timeout).stdout


class Stream(ABC):
    """Something that goes on in a thread of its own, and notes when; until the end of a `with`, or `stop`."""

    name = ""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._news = threading.Condition()
        self._at: list[float] = []  # when each piece came, s of the monotonic clock
        self.broken: str = ""
        self._thread = threading.Thread(target=self._go, name=self.name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def count(self) -> int:
        """Pieces so far."""
        return len(self._at)

    def wait_for(self, more: int, timeout: float) -> None:
        """Until so many more pieces have come; raises MultirootError if it is broken, WaitTimeoutError."""
        wanted = self.count + more
        with self._news:
            self._news.wait_for(lambda: self.broken or self.count >= wanted, timeout)
        if self.broken:
            raise MultirootError(f"{self.name}: {self.broken}")
        if self.count < wanted:
            raise WaitTimeoutError(f"{self.name}: nothing came for {timeout:g} s")

    def longest_gap(self, since: float) -> float:
        """The longest time between two pieces that came after `since`, s."""
        late = [at for at in self._at if at >= since]
        return max((after - before for before, after in pairwise(late)), default=0.0)

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._ended.set()
        self._end()
        self._thread.join()

    def _came(self) -> None:
        with self._news:
            self._at.append(time.monotonic())
            self._news.notify_all()

    def _go(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told by `broken`
            self._break(str(error) or type(error).__name__)
        else:
            if not self._ended.is_set():
                self._break("it ended")

    def _break(self, why: str) -> None:
        with self._news:
            self.broken = why
            self._news.notify_all()

    @abstractmethod
    def _run(self) -> None:
        """Note pieces until the end."""

    @abstractmethod
    def _end(self) -> None:
        """End what keeps `_run` from noticing that it is to end."""


class Lines(Stream):
    """A command in the guest, in an SSH session of its own; each line that it prints is a piece."""

    def __init__(self, login: Login, command: str, log: Path, take: Callable[[bytes], None]) -> None:
        super().__init__()
        self._take = take
        self._session = proc.spawn(login.argv(command), log=log, piped=True)

    def _run(self) -> None:
        assert self._session.stdout
        for line in self._session.stdout:
            self._take(line)
            self._came()

    def _end(self) -> None:
        self._session.kill()
        self._session.wait()


class Counter(Lines):
    """A session in which somebody works: numbers that follow each other."""

    name = "ssh"

    def __init__(self, login: Login, log: Path) -> None:
        command = f"i=0; while i=$((i+1)); do echo $i; sleep {STEP_S}; done"
        super().__init__(login, command, log, self._check)

    def _check(self, line: bytes) -> None:
        if int(line) != self.count + 1:
            raise MultirootError(f"{line!r} came after {self.count}")


class Blocks(Lines):
    """A block that is written to the guest's disk and read back, past every cache of the guest's."""

    name = "disk"

    def __init__(self, login: Login, log: Path) -> None:
        self._done: list[float] = []  # by the guest's clock, s; of each piece
        super().__init__(login, f"sudo python3 -c {shlex.quote(_BLOCKS)}", log, self._note)

    def _note(self, line: bytes) -> None:
        number, _, at = line.decode().partition(" ")
        if number != str(self.count + 1):
            raise MultirootError(f"block {self.count + 1} did not come back as it was written: {line!r}")
        self._done.append(float(at))

    def longest_gap(self, since: float) -> float:
        """By the guest's clock, so that it is the disk's and not the network's."""
        done = [at for at, heard in zip(self._done, self._at, strict=False) if heard >= since]
        return max((after - before for before, after in pairwise(done)), default=0.0)


class Pings(Lines):
    """The guest pings the world outside, 100 times a second; which answers it got, by its own clock."""

    name = "ping"

    def __init__(self, login: Login, address: str, log: Path) -> None:
        self.answers: dict[int, float] = {}
        self._heard: dict[int, float] = {}  # when we heard of it, s of our monotonic clock
        self.again = 0
        super().__init__(login, f"sudo ping -n -D -i {PING_S} {address}", log, self._note)

    def _note(self, line: bytes) -> None:
        if match := _PING.match(line):
            number = int(match[2])
            self.again += number in self.answers
            self.answers.setdefault(number, float(match[1]))
            self._heard.setdefault(number, time.monotonic())

    @property
    def newest(self) -> int:
        """The number of the latest ping that was answered, 0 before the first."""
        return max(self.answers, default=0)

    def lost(self, after: int = 0, until: int | None = None) -> list[range]:
        """Those with numbers above `after` and up to `until` that were not answered though a later one was;
        what follows each other without an answer between is one range.
        """
        last = self.newest if until is None else until
        return runs(number for number in range(after + 1, last + 1) if number not in self.answers)

    def longest_gap(self, since: float) -> float:
        """By the guest's clock."""
        at = sorted(self.answers[number] for number, heard in self._heard.items() if heard >= since)
        return max((after - before for before, after in pairwise(at)), default=0.0)


def runs(numbers: Iterable[int]) -> list[range]:
    """Rising numbers as ranges of those that follow each other."""
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


class Sql(Stream):
    """Numbered rows, each in a transaction of its own, over one connection, after those up to `acknowledged`.
    That is the last one of which the server said that it is there for good.
    """

    name = "sql"

    def __init__(self, port: int, password: str, acknowledged: int = 0) -> None:
        super().__init__()
        self._connection = psycopg.connect(
            host=HOST, port=port, user=USER, password=password, dbname="postgres", autocommit=True
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS numbers (n bigint)")
        self.acknowledged = acknowledged

    def _run(self) -> None:
        while not self._ended.is_set():
            number = self.acknowledged + 1
            self._connection.execute("INSERT INTO numbers VALUES (%s)", (number,))
            self.acknowledged = number
            self._came()

    def _end(self) -> None:
        """It looks after each row."""

    def cut(self) -> None:
        """End the connection, however long the server may be silent; nothing if it has ended."""
        with (
            suppress(psycopg.OperationalError, OSError),
            socket.socket(fileno=os.dup(self._connection.fileno())) as connection,
        ):
            connection.shutdown(socket.SHUT_RDWR)

    def stored(self) -> tuple[int, int]:
        """After `stop`: how many rows there are, and how many different numbers from 1 to `acknowledged`."""
        asked = "SELECT count(*), count(DISTINCT n) FILTER (WHERE n BETWEEN 1 AND %s) FROM numbers"
        row = self._connection.execute(asked, (self.acknowledged,)).fetchone()
        assert row
        return int(row[0]), int(row[1])

    def close(self) -> None:
        """Leave the server."""
        with suppress(psycopg.Error):
            self._connection.close()


def serve_sql(login: Login, password: str) -> None:
    """Let the guest's PostgreSQL answer on its network, to one user, also after a power cut right then."""
    quoted = password.replace("'", "''")
    statements = (
        f"CREATE ROLE {USER} LOGIN SUPERUSER PASSWORD '{quoted}'",
        "ALTER SYSTEM SET listen_addresses = '*'",
    )
    said = " ".join(f'-c "{each}"' for each in statements)
    login.run(
        f"cd / && sudo -u postgres psql -q {said} && "
        f"echo 'host all {USER} 10.77.0.0/16 scram-sha-256' | sudo tee -a /etc/postgresql/*/main/pg_hba.conf "
        "&& sync && sudo systemctl restart postgresql"
    )


class Fio(Lines):
    """fio writes blocks with checksums, direct to the disk, and reads them back, again and again."""

    name = "fio"

    def __init__(self, login: Login, log: Path) -> None:
        self._login = login
        self._said = b""
        # Each round is verified by itself. It ends after the round in which the file to stop is made.
        job = (
            f"--name=verify --filename={_FILE} --size=512K --rw=randwrite --bs=4k --direct=1 --ioengine=psync"
            " --verify=crc32c --verify_fatal=1 --output-format=json"
        )
        command = f"rm -f {_STOP}; while ! [ -e {_STOP} ]; do fio {job} | tr -d '\\n' && echo || exit 1; done"
        self.errors = 0
        super().__init__(login, command, log, self._judge)

    def _judge(self, line: bytes) -> None:
        report: Any = json.loads(line[line.index(b"{") :])
        self.errors += sum(int(job["error"]) for job in report["jobs"])
        if self.errors:
            raise MultirootError(f"fio found {self.errors} errors")
