# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of a device state: whatever happens to them on the wire, only what was sent is given out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.handoff import frames
from multiroot.handoff.frames import MAX_DATA, PREFIX_SIZE, DamagedStateError, Opener, Sealer

KEY = bytes(range(frames.KEY_SIZE))

states = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


def sealed(state: list[bytes]) -> list[bytes]:
    """The frames of a state, the trailer last."""
    sealer = Sealer(KEY)
    return [sealer.seal(data) + data for data in [*state, b""]]


def opened(opener: Opener, stream: bytes, portions: list[int] | None = None) -> tuple[bytes, str]:
    """What an opener gives out of a stream that arrives in portions, and what it finds wrong with it."""
    out, cuts = b"", list(portions or [])
    try:
        while stream and not opener.complete:
            space = opener.space()
            size = min(len(stream), len(space), cuts.pop() if cuts else len(stream))
            space[:size] = stream[:size]
            stream = stream[size:]
            for data in opener.arrived(size):
                out += bytes(data)
        opener.end()
    except DamagedStateError as error:
        return out, error.message
    return out, ""


@given(states, st.lists(st.integers(1, 400), max_size=40))
def test_a_state_comes_through_whole_in_any_portions(state: list[bytes], portions: list[int]) -> None:
    stream = b"".join(sealed(state))
    assert opened(Opener(KEY), stream, portions) == (b"".join(state), "")


def test_the_largest_frame_comes_through() -> None:
    state = [bytes(MAX_DATA)] * 9
    assert opened(Opener(KEY), b"".join(sealed(state)), [MAX_DATA] * 9) == (b"".join(state), "")


@given(states, st.data())
def test_a_changed_stream_is_noticed_and_gives_out_nothing_false(
    state: list[bytes], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(sealed(state)))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    out, wrong = opened(Opener(KEY), bytes(stream))
    assert wrong
    assert b"".join(state).startswith(out)


@given(states, st.data())
def test_frames_in_another_order_more_or_fewer_are_noticed(state: list[bytes], data: st.DataObject) -> None:
    sent = sealed(state)
    numbers = data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=len(sent) + 2))
    arrived = b"".join(sent[number] for number in numbers)
    out, wrong = opened(Opener(KEY), arrived)
    assert bool(wrong) == (numbers != list(range(len(sent))))
    assert b"".join(state).startswith(out)


@given(states, st.data())
def test_a_stream_that_is_cut_off_is_noticed(state: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(sealed(state))
    out, wrong = opened(Opener(KEY), stream[: data.draw(st.integers(0, len(stream) - 1))])
    assert wrong.startswith(f"it ended after {len(out)} bytes")
    assert b"".join(state).startswith(out)


@given(st.binary(max_size=2000))
def test_noise_gives_out_nothing(noise: bytes) -> None:
    out, wrong = opened(Opener(KEY), noise)
    assert out == b""
    assert wrong


@given(states.filter(bool))
def test_frames_under_another_key_are_not_for_us(state: list[bytes]) -> None:
    out, wrong = opened(Opener(bytes(frames.KEY_SIZE)), b"".join(sealed(state)))
    assert (out, wrong) == (b"", "after 0 bytes, frame 0 has a wrong checksum")


def test_a_frame_that_claims_to_be_too_long_is_not_waited_for() -> None:
    header = frames.HEADER.pack(0, MAX_DATA + 1, 0)
    assert opened(Opener(KEY), header + bytes(PREFIX_SIZE))[1] == "what comes after 0 bytes is not frame 0"


def test_the_greeting_does_not_tell_the_key() -> None:
    assert frames.greeting(KEY) != frames.greeting(bytes(frames.KEY_SIZE))
    assert KEY[:8] not in frames.greeting(KEY)
    with pytest.raises(ValueError, match="key"):
        frames.greeting(KEY * 4)
