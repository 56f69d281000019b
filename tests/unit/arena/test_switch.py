# SPDX-License-Identifier: GPL-2.0-or-later
"""The blackout's one C call: its steps come in their order, each once, and only as far as they may."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.arena.atomics import Memory
from multiroot.arena.switch import SIZE, Outcome, Step, Switch

LOADED = (b'"event": "MIGRATION"', b'"status": "completed"')
LINE = b'{"event": "MIGRATION", "data": {"status": "completed"}}\n'
OTHER = b'{"event": "MIGRATION", "data": {"status": "active"}}\n'
OLD, NEW = 7, 8


class World:
    """An owner word, and a VMM at the other end of a socket."""

    def __init__(self) -> None:
        self.memory = Memory(bytearray(64))
        self.memory.store(8, OLD)
        self.ours, self.vmm = socket.socketpair()
        self.vmm.settimeout(20)
        self.switch = Switch(self.memory.address(8), OLD, NEW, time.monotonic_ns)
        self.switch.attach(self.ours.fileno(), LOADED, b"}")

    @property
    def owner(self) -> int:
        return self.memory.load(8)

    def close(self) -> None:
        self.switch.close()
        self.ours.close()
        self.vmm.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_all_steps_in_one_call(world: World) -> None:
    world.vmm.sendall(LINE + b"rest")
    world.switch.state_ended(whole=True)
    assert world.switch.run(Step.GONE) is Outcome.DONE
    assert world.owner == NEW
    assert world.vmm.recv(10) == b"}"
    assert (world.switch.line, world.switch.rest) == (LINE, b"rest")
    stamps = world.switch.stamps()
    assert list(stamps) == [Step.HEARD, Step.CHECKED, Step.TAKEN, Step.GONE]
    assert all(before <= after for before, after in pairwise(stamps.values()))
    assert abs(stamps[Step.GONE] - time.monotonic_ns()) < 10_000_000_000


def test_steps_one_by_one_are_each_taken_once(world: World) -> None:
    world.vmm.sendall(LINE)
    world.switch.state_ended(whole=True)
    for step in (Step.HEARD, Step.CHECKED):
        assert world.switch.run(step) is Outcome.DONE
        assert (world.switch.step, world.owner) == (step, OLD)
    assert world.switch.run(Step.TAKEN) is Outcome.DONE
    assert world.owner == NEW
    assert world.switch.run(Step.TAKEN) is Outcome.DONE
    world.vmm.setblocking(False)
    with pytest.raises(BlockingIOError):
        world.vmm.recv(10)
    assert world.switch.run(Step.GONE) is Outcome.DONE
    assert world.vmm.recv(10) == b"}"


def test_a_thread_that_waits_is_woken_by_the_state_s_end(world: World) -> None:
    world.vmm.sendall(LINE)
    ended: list[Outcome] = []
    thread = threading.Thread(target=lambda: ended.append(world.switch.run(Step.GONE)))
    thread.start()
    world.vmm.settimeout(0.05)
    with pytest.raises(TimeoutError):
        world.vmm.recv(10)  # nothing goes on before that
    assert world.owner == OLD
    world.switch.state_ended(whole=True)
    thread.join(20)
    assert ended == [Outcome.DONE]


def test_a_state_that_is_not_whole_is_not_taken(world: World) -> None:
    world.vmm.sendall(LINE)
    world.switch.state_ended(whole=False)
    assert world.switch.run(Step.GONE) is Outcome.DAMAGED
    assert (world.owner, world.switch.taken) == (OLD, False)


def test_a_state_that_ends_after_the_close_touches_no_other_file(world: World) -> None:
    number = world.switch._c.state_changed
    world.switch.close()
    # The number is another file's now.
    other = os.eventfd(0, os.EFD_NONBLOCK)
    if other != number:
        os.dup2(other, number)
        os.close(other)
        other = number
    world.switch.state_ended(whole=True)
    world.switch.close()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(other)
    os.close(other)
    world.switch.abort()
    assert world.switch.run(Step.GONE) is Outcome.ABORTED
    assert world.owner == OLD


def test_a_thread_that_waits_is_woken_though_it_was_closed_meanwhile(world: World) -> None:
    world.vmm.sendall(LINE)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(world.switch.run(Step.GONE)))
    thread.start()
    while world.switch.step < Step.HEARD:
        thread.join(0.001)
    world.switch.abort()
    world.switch.close()
    world.switch.state_ended(whole=True)
    thread.join(20)
    assert outcomes == [Outcome.ABORTED]
    assert world.owner == OLD


def test_who_was_given_up_takes_nothing(world: World) -> None:
    world.vmm.sendall(LINE)
    world.switch.state_ended(whole=True)
    assert world.switch.abort()
    assert world.switch.abort()
    assert world.switch.run(Step.GONE) is Outcome.ABORTED
    assert world.owner == OLD


def test_it_is_too_late_to_give_up_what_is_taken(world: World) -> None:
    world.vmm.sendall(LINE)
    world.switch.state_ended(whole=True)
    world.switch.run(Step.TAKEN)
    assert not world.switch.abort()
    assert world.switch.taken


def test_a_word_that_has_changed_is_left_as_it_is(world: World) -> None:
    world.memory.store(8, 99)
    world.vmm.sendall(LINE)
    world.switch.state_ended(whole=True)
    assert world.switch.run(Step.GONE) is Outcome.FENCED
    assert (world.owner, world.switch.seen) == (99, 99)
    assert not world.switch.taken
    assert world.switch.abort()


def test_a_vmm_that_ends_is_noticed_at_each_step(world: World) -> None:
    world.vmm.sendall(LINE[:-5])
    world.vmm.close()
    world.switch.state_ended(whole=True)
    assert world.switch.run(Step.GONE) is Outcome.HUNG_UP
    assert world.switch.step is Step.BEGUN
    world.switch.hear()
    assert world.switch.run(Step.GONE) is Outcome.HUNG_UP
    assert (world.switch.step, world.owner) == (Step.TAKEN, NEW)


def test_a_line_without_end_is_too_long(world: World) -> None:
    sender = threading.Thread(target=lambda: world.vmm.sendall(bytes(SIZE)))
    sender.start()
    assert world.switch.run(Step.GONE) is Outcome.TOO_LONG
    sender.join(20)


@given(
    st.lists(st.sampled_from([OTHER, b"\n", b'{"return": {}}\n', b"x" * 300 + b"\n"]), max_size=8), st.data()
)
def test_other_lines_are_given_out_in_their_order(lines: list[bytes], data: st.DataObject) -> None:
    world = World()
    text = b"".join(lines) + LINE
    said = data.draw(st.integers(0, len(text)))
    world.switch.attach(world.ours.fileno(), LOADED, b"}", text[:said])
    world.vmm.sendall(text[said:])
    world.switch.state_ended(whole=True)
    given_out = []
    while (outcome := world.switch.run(Step.GONE)) is Outcome.SAID:
        given_out.append(world.switch.line)
    assert (outcome, given_out) == (Outcome.DONE, lines)
    world.close()
