# SPDX-License-Identifier: GPL-2.0-or-later
"""When a giver's relay hears that its taker has hung up."""

from __future__ import annotations

import socket
import threading
import time

from multiroot.handoff.frames import KEY_SIZE, Sealer
from multiroot.handoff.relay import IncomingState, OutgoingState


def outgoing() -> tuple[OutgoingState, socket.socket, threading.Event]:
    ours, takers = socket.socketpair()
    heard = threading.Event()
    return OutgoingState(ours, bytes(KEY_SIZE), "vm0", time.monotonic_ns, heard.set), takers, heard


def all_of(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(1 << 16):
        data += more
    return data


def test_it_hears_of_a_taker_that_hangs_up_after_all_of_the_state() -> None:
    state, taker, heard = outgoing()
    with taker:
        state.vmm_end.sendall(b"state")
        state.vmm_end.close()
        assert b"state" in all_of(taker)
        assert not heard.is_set()
        taker.shutdown(socket.SHUT_WR)
        assert heard.wait(10)
    state.close()


def test_it_hears_of_a_taker_that_is_gone() -> None:
    state, taker, heard = outgoing()
    taker.close()
    state.vmm_end.close()
    assert heard.wait(10)
    state.close()


def test_it_hears_nothing_once_it_is_closed() -> None:
    state, taker, heard = outgoing()
    with taker:
        state.vmm_end.close()
        all_of(taker)
        state.close()
        assert not heard.is_set()


def test_it_notes_when_the_last_of_the_state_came() -> None:
    ours, taker = socket.socketpair()
    moments = iter((7, 11, 13))
    state = OutgoingState(ours, bytes(KEY_SIZE), "vm0", lambda: next(moments), lambda: None)
    with taker:
        for data in (b"first", b"last"):
            state.vmm_end.sendall(data)
            while data not in taker.recv(1 << 16):
                pass
        state.vmm_end.close()
        all_of(taker)
    state.close()
    assert state.last_ns == 11


def test_the_other_end_notes_when_it_passed_the_last_on() -> None:
    ours, givers = socket.socketpair()
    key = bytes(KEY_SIZE)
    moments = iter((7, 11, 13))
    ended = threading.Event()
    state = IncomingState(ours, key, "vm0", lambda: next(moments), lambda whole: ended.set())
    seal = Sealer(key).seal
    with givers:
        for data in (b"first", b"last"):
            givers.sendall(seal(memoryview(data)) + data)
            assert state.vmm_end.recv(1 << 16) == data
        givers.sendall(seal(memoryview(b"")))
        assert ended.wait(10)
    state.close()
    assert state.last_ns == 11
