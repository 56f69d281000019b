# SPDX-License-Identifier: GPL-2.0-or-later
"""A wire that damages device states: no taker's VMM sees anything false, the guest goes on in the giver."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from multiroot.arena.layout import Owner
from multiroot.errors import MultirootError
from multiroot.handoff import frames, wire

from .harness import SMALL, Root, hand, make_root
from .memory_vmm import STATE, MemoryVmms

Damage = Callable[[list[bytes]], list[bytes]]


@pytest.fixture
def vmms() -> tuple[MemoryVmms, MemoryVmms]:
    return MemoryVmms(), MemoryVmms()


@pytest.fixture
async def roots(ground: Path, vmms: tuple[MemoryVmms, MemoryVmms]) -> AsyncIterator[tuple[Root, Root]]:
    giver, taker = (make_root(number, ground, made) for number, made in enumerate(vmms, 1))
    for root in (giver, taker):
        await root.serve()
    yield giver, taker
    for root in (giver, taker):
        await root.close()


def flipped(sent: list[bytes]) -> list[bytes]:
    return [*sent[:-2], bytes([*sent[-2][:-1], sent[-2][-1] ^ 1]), sent[-1]]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a bit flipped": (flipped, "has a wrong checksum"),
    "cut off in a frame": (lambda sent: [*sent[:-2], sent[-2][:500]], "before its trailer"),
    "no trailer": (lambda sent: sent[:-1], f"it ended after {len(STATE)} bytes"),
    "nothing at all": (lambda sent: [], "it ended after 0 bytes"),
    "a frame twice": (lambda sent: [sent[0], *sent], "is not frame 1"),
    "two frames in the other order": (lambda sent: [sent[1], sent[0], *sent[2:]], "is not frame 0"),
    "a frame left out": (lambda sent: [sent[0], *sent[2:]], "is not frame 1"),
    "noise": (lambda sent: [b"\xff" * 100], "is not frame 0"),
    "an early trailer": (lambda sent: [sent[0], sent[-1]], "is not frame 1"),
    "more behind the end": (lambda sent: [*sent[:-1], sent[-1] + b"more"], "something follows its end"),
}


def split(stream: bytes) -> list[bytes]:
    """The frames of a stream."""
    found = []
    while stream:
        _, size, _ = frames.HEADER.unpack(stream[: frames.HEADER.size])
        end = frames.PREFIX_SIZE + size
        found.append(stream[:end])
        stream = stream[end:]
    return found


def put_between(monkeypatch: pytest.MonkeyPatch, damage: Damage) -> None:
    """Connect the givers' agents with takers by way of someone who damages what passes."""
    connect = wire.connect

    async def by_way_of(to: wire.Endpoint) -> socket.socket:
        onward = await connect(to)
        ours, theirs = socket.socketpair()

        def passing() -> None:
            with ours, onward:
                stream = b""
                while data := ours.recv(1 << 16):
                    stream += data
                with suppress(BrokenPipeError, ConnectionResetError):  # who sees the damage hangs up
                    for part in damage(split(stream)):
                        onward.sendall(part)

        threading.Thread(target=passing, daemon=True).start()
        return theirs

    monkeypatch.setattr(wire, "connect", by_way_of)


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_state_is_not_taken(
    name: str,
    roots: tuple[Root, Root],
    vmms: tuple[MemoryVmms, MemoryVmms],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    giver, taker = roots
    damage, words = DAMAGES[name]
    vm = await giver.manager.run(SMALL)
    with monkeypatch.context() as hostile:
        put_between(hostile, damage)
        with pytest.raises(MultirootError, match=f"of vm0 was damaged on its way: .*{words}") as damaged:
            await hand(giver, taker)
    assert "multiroot handoff" not in damaged.value.hint, (
        "the taker cannot know which root it is to be given to"
    )
    first, second = (made.made[-1] for made in vmms)
    assert (first.running, second.running) == (True, False)
    assert STATE.startswith(second.received)
    assert vm.owner == Owner(1, 2)
    assert taker.manager.find("vm0") is None

    await hand(giver, taker)
    assert [made.made[-1].running for made in vmms] == [False, True]


async def test_an_honest_one_between_does_no_harm(
    roots: tuple[Root, Root], monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker = roots
    await giver.manager.run(SMALL)
    put_between(monkeypatch, lambda sent: sent)
    assert (await hand(giver, taker)).epoch == 2


async def test_nothing_of_the_relays_is_left(roots: tuple[Root, Root]) -> None:
    giver, taker = roots
    await giver.manager.run(SMALL)
    await hand(giver, taker)
    await hand(taker, giver)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("relay")] == []
