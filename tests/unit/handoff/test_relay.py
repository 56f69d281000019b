# SPDX-License-Identifier: GPL-2.0-or-later
"""When a giver's relay hears that its taker has hung up."""

from __future__ import annotations

import socket
import threading

from multiroot.handoff.frames import KEY_SIZE
from multiroot.handoff.relay import OutgoingState


def outgoing() -> tuple[OutgoingState, socket.socket, threading.Event]:
    ours, takers = socket.socketpair()
    heard = threading.Event()
    return OutgoingState(ours, bytes(KEY_SIZE), "vm0", heard.set), takers, heard


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
