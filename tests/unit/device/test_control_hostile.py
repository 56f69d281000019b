# SPDX-License-Identifier: GPL-2.0-or-later
"""The other root may write anything into the control page: it is read, and whatever it means is a state."""

from __future__ import annotations

import mmap

from hypothesis import given, settings
from hypothesis import strategies as st

from multiroot.device.control import ControlPage
from multiroot.device.uapi import CONTROL_SIZE, PeerIndex
from multiroot.root.peers import Peer, Peers, Role, SideState


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 1023), st.binary(min_size=1, max_size=64)), max_size=8),
    st.sampled_from(list(PeerIndex)[:2]),
    st.integers(0, (1 << 64) - 1),
)
def test_any_page_can_be_read(pokes: list[tuple[int, bytes]], index: PeerIndex, now: int) -> None:
    memory = mmap.mmap(-1, CONTROL_SIZE)
    for at, data in pokes:
        memory[at : at + len(data)] = data
    page = ControlPage(memory, index)
    try:
        assert page.theirs.release.encode(errors="replace") is not None
        assert len(page.theirs.boot_id) == 16
        peers = Peers(lambda: now, lambda: now)
        peers.attach(Role.CHILD, page)
        peer = peers.get(Role.CHILD)
        assert isinstance(peer, Peer)
        for _ in range(3):
            peer.beat(now)
        assert peer.state in SideState
        assert all(isinstance(value, bool) for value in (peer.lost, peer.gone, peer.ready))
        assert peer.view().state
        assert peers.by_name("new") is peer
    finally:
        page.close()
