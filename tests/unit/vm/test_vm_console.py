# SPDX-License-Identifier: GPL-2.0-or-later
"""The console keeper as the process it is, and what is read back of it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import ConflictError
from multiroot.vm import console
from multiroot.vm.console import RECORD, START, TOLD_MOST, Log
from multiroot.vm.folder import VmFolder
from multiroot.vm.history import parse, read_history, read_told
from multiroot.vm.stream import Follower, open_console


@contextmanager
def keeper(folder: VmFolder) -> Iterator[socket.socket]:
    """A running keeper; yields the guest's end of the serial port."""
    folder.make()
    guest, serial = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder.console))
    listener.listen()
    fds = (serial.fileno(), listener.fileno())
    argv = [sys.executable, "-I", "-S", console.__file__, str(fds[0]), str(fds[1]), folder.console_record]
    process = subprocess.Popen(argv, pass_fds=fds)
    serial.close()
    listener.close()
    try:
        yield guest
    finally:
        guest.close()
        assert process.wait(timeout=30) == 0


def text(folder: VmFolder) -> bytes:
    return b"".join(piece.data for piece in read_history(folder.console_record))


async def test_output_is_kept_stamped_and_sent_on(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    with keeper(folder) as guest:
        async with open_console(folder) as first:
            assert (first.start, first.history()) == (0, b"")
            guest.sendall(b"hello ")
            assert await first.read() == b"hello "
            async with open_console(folder) as second:
                assert (second.start, second.history()) == (6, b"hello ")
                guest.sendall(b"world")
                assert await second.read() == await first.read() == b"world"
                await second.write(b"typed")
                assert guest.recv(100) == b"typed"
        guest.sendall(b"!")
    pieces = read_history(folder.console_record)
    assert [(piece.start, piece.data) for piece in pieces] == [(0, b"hello "), (6, b"world"), (11, b"!")]
    assert pieces[0].at_ns < pieces[1].at_ns < pieces[2].at_ns
    assert [piece.start for piece in read_history(folder.console_record, 6)] == [6, 11]


async def test_it_ends_with_the_serial_port(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    with keeper(folder) as guest:
        async with open_console(folder) as client:
            guest.sendall(b"last words")
            guest.close()
            assert await client.read() == b"last words"
            assert await client.read() == b""
    assert text(folder) == b"last words"
    with pytest.raises(ConflictError, match="console is closed"):
        async with open_console(folder):
            pass


def test_lines_that_tell_of_trouble_are_kept_apart(tmp_path: Path) -> None:
    """Whole lines, whatever came in one read; each with the time of its end; no others."""
    folder = VmFolder(tmp_path, "vm0")
    killed = b"[ 3.1] Out of memory: Killed process 71 (ticker) total-vm:9kB"
    with keeper(folder) as guest:
        guest.sendall(b"T 1\n" + killed[:20])
        guest.sendall(killed[20:] + b"\r\nT 2\nprocess 1\n")
        for number in range(TOLD_MOST):
            guest.sendall(b"Kernel panic - not syncing: %d\n" % number)
    told = read_told(folder.console_record)
    assert [line for _, line in told] == [f"Kernel panic - not syncing: {n}" for n in range(TOLD_MOST)]


def test_a_line_of_trouble_has_the_time_at_which_it_came(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    with keeper(folder) as guest:
        guest.sendall(b"Memory cgroup out of memory: Killed process 9 (a b)\n")
    (piece, *_), ((at_ns, line),) = read_history(folder.console_record), read_told(folder.console_record)
    assert at_ns >= piece.at_ns
    assert line == "Memory cgroup out of memory: Killed process 9 (a b)"


async def test_who_was_dropped_for_being_slow_misses_nothing(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    sent = bytes(range(256)) * (8 << 10)
    with keeper(folder) as guest:
        guest.sendall(b"before")
        async with open_console(folder) as probe:
            if probe.start < 6:
                await probe.read()
        output = Follower(folder).output(history=True)
        seen = await anext(output)
        # More than the keeper's sockets hold, and nobody reads.
        await asyncio.to_thread(guest.sendall, sent)
        while len(seen) < 6 + len(sent):
            seen += await anext(output)
        guest.close()
        assert [more async for more in output] == []
    assert seen == b"before" + sent


async def test_what_is_typed_before_the_console_is_open_is_not_lost(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    with keeper(folder) as guest:
        guest.sendall(b"before")
        follower = Follower(folder)
        typing = asyncio.create_task(follower.write(b"early"))
        await asyncio.sleep(0)
        assert not typing.done()
        output = follower.output(history=True)
        assert await anext(output) == b"before"
        await typing
        assert await asyncio.to_thread(guest.recv, 100) == b"early"
        guest.close()
        assert [more async for more in output] == []


def test_a_client_that_does_not_read_delays_nobody(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    amount = 3 << 20
    with keeper(folder) as guest, socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(folder.console))
        assert START.unpack(deaf.recv(8)) == (0,)
        guest.sendall(bytes(amount))
    assert len(text(folder)) == amount


@given(
    st.lists(st.tuples(st.integers(0, 1 << 63), st.binary(min_size=1, max_size=50)), max_size=30), st.data()
)
def test_history_cut_anywhere_gives_whole_pieces(
    pieces: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    written = b""
    ends = [0]
    start = 0
    for at_ns, output in pieces:
        written += RECORD.pack(at_ns, start, len(output)) + output
        start += len(output)
        ends.append(len(written))
    cut = data.draw(st.integers(0, len(written)))
    whole = sum(end <= cut for end in ends) - 1
    assert [(piece.at_ns, piece.data) for piece in parse(written[:cut])] == pieces[:whole]


def test_segments_keep_the_end(tmp_path: Path) -> None:
    path = tmp_path / "record"
    log = Log(str(path), segment=200)
    for number in range(50):
        log.append(b"%010d" % number, number)
        kept = read_history(path)
        assert kept[-1].data == b"%010d" % number
        assert all(a.end == b.start for a, b in pairwise(kept))
        assert 1 <= len(kept) <= 14
    assert log.end == 500


def test_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "none") == []
