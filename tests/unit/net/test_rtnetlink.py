# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of the kernel's answers that a quiet kernel does not give; the rest is in in_namespace.py."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from multiroot.net import rtnetlink

NEW_LINK, ERROR, DONE, INTERRUPTED = 16, 2, 3, 0x10


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def link(index: int, name: str, flags: int = 0) -> bytes:
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 3) + text
    body = struct.pack("=BxHiII", 0, 1, index, 1, 0) + attribute + bytes(-len(attribute) % 4)
    return message(NEW_LINK, body, flags)


class Kernel:
    """Answers as it is told; counts the requests."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked = 0

    def send(self, data: bytes) -> int:
        self.asked += 1
        return len(data)

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0)


def test_a_list_comes_in_pieces() -> None:
    kernel: Any = Kernel(link(1, "lo") + link(2, "a"), link(3, "bcd"), message(DONE, bytes(4)))
    found = [(each.index, each.name, each.master) for each in rtnetlink.devices(kernel)]
    assert found == [(1, "lo", 0), (2, "a", 0), (3, "bcd", 0)]
    assert kernel.asked == 1


def test_a_list_that_has_changed_meanwhile_is_asked_for_again() -> None:
    half = link(1, "lo", INTERRUPTED), message(DONE, bytes(4))
    kernel: Any = Kernel(*half, link(1, "lo") + link(2, "a") + message(DONE, bytes(4)))
    assert [each.name for each in rtnetlink.devices(kernel)] == ["lo", "a"]
    assert kernel.asked == 2


def test_what_the_kernel_refuses_is_raised() -> None:
    kernel: Any = Kernel(message(ERROR, struct.pack("=i", -errno.EPERM) + bytes(16)))
    with pytest.raises(OSError, match="not permitted") as refusal:
        rtnetlink.add_bridge(kernel, "br0")
    assert refusal.value.errno == errno.EPERM
