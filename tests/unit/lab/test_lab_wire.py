# SPDX-License-Identifier: GPL-2.0-or-later
"""The sender of numbered frames, at a socket that stands for a card."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from multiroot.lab.wire import Sender


def test_frames_are_numbered_and_none_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "card"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as card:
        card.bind(str(path))
        with Sender(path, period=0.001):
            numbers = [struct.unpack_from("<Q", card.recv(100), 14)[0] for _ in range(50)]
    assert numbers == list(range(1, 51))


def test_a_card_that_takes_nothing_does_not_hold_the_sender(tmp_path: Path) -> None:
    path = tmp_path / "card"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as card:
        card.bind(str(path))
        sender = Sender(path, period=0.0001)
        with sender:
            # Until the socket is full, nobody reads: it has room for some hundred at most.
            card.recv(100, socket.MSG_PEEK)
            while True:
                before = sender.sent
                sender._stop.wait(0.2)
                if sender.sent == before:
                    break
        taken = sender.sent
        card.setblocking(False)
        there = [card.recv(100) for _ in range(taken)]
    assert struct.unpack_from("<Q", there[-1], 14)[0] == taken


def test_frames_are_counted_by_when_they_were_taken(tmp_path: Path) -> None:
    sender = Sender(tmp_path / "card")
    sender.times += [10, 20, 30, 40]
    assert sender.sent == 4
    assert sender.between(20, 40) == 2
