# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames a giver sends on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiroot.net.late_frames import missed
from multiroot.net.tap import VNET_HEADER

HEADER, OTHER_HEADER = bytes(VNET_HEADER), b"\1" * VNET_HEADER
UNICAST, EVERYONE = b"\x52", b"\xff"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=40),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(0, 8),
)
def test_no_frame_is_lost_that_a_vmm_has_not_given_its_guest(
    came: list[tuple[int, int, bool]], looked: list[int], heard_from: int
) -> None:
    """Frames come to queues, some alike, some for everyone. The VMM has read each queue up to somewhere,
    where the last two it has read got lost; whoever listens has come a little late.
    """
    queues: list[list[bytes]] = [[] for _ in looked]
    seen = []
    for at, (queue, content, to_all) in enumerate(came):
        data = (EVERYONE if to_all else UNICAST) + bytes([content])
        queues[queue % len(looked)].append(OTHER_HEADER + data)
        if at >= heard_from and not to_all:
            seen.append(HEADER + data)
    left = [frames[min(len(frames), read) :] for frames, read in zip(queues, looked, strict=True)]
    found = [frame[VNET_HEADER:] for frame in missed(seen, left)]
    assert all(frame.startswith(UNICAST) for frame in found)
    waiting = [frame[VNET_HEADER:] for queue in left for frame in queue if frame[VNET_HEADER:] < EVERYONE]
    assert found[len(found) - len(waiting) :] == waiting, "all that is left, in the order of each queue"
    taken = [frame[VNET_HEADER:] for frame in seen]
    for frame in waiting:
        if frame in taken:
            del taken[len(taken) - 1 - taken[::-1].index(frame)]
    assert found[: len(found) - len(waiting)] == taken[-2 * len(looked) :], "and the last that were taken"
