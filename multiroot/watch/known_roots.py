# SPDX-License-Identifier: GPL-2.0-or-later
"""The roots beside this one: how they are, and how those ended that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from multiroot.watch.facts import RootFacts, RootState
from multiroot.watch.kernel_tail import Lines

KEPT = 4  # roots that have ended


@dataclass(frozen=True)
class PeerLook:
    """A peer as it looks now. `started_ns` is when it was first seen here."""

    number: int
    role: str  # "old" or "new"
    state: str  # as in root.proto: absent, started, attached, ready, parked, lost
    kernel_release: str


class KnownRoots:
    """Follows the peers of one root."""

    def __init__(self, clock: Callable[[], int], end_wanted: Callable[[str], bool]) -> None:
        """`clock` is the machine-wide one. `end_wanted` says whether the root in a role is being ended."""
        self._clock = clock
        self._end_wanted = end_wanted
        self._roots: dict[int, RootFacts] = {}
        self.lines = Lines()  # what the kernel of a new root says, by its parent

    def look(self, peers: Iterable[PeerLook]) -> dict[str, RootFacts]:
        """All that is known of them by now."""
        peers = list(peers)
        for peer in peers:
            self._take_in(peer)
        there = {peer.number for peer in peers}
        for number, facts in self._roots.items():
            if number not in there and not _is_over(facts):
                # Nobody lets go of a root that has not ended.
                facts.state, facts.role = RootState.ENDED, ""
        over = [number for number, facts in self._roots.items() if _is_over(facts)]
        for number in over[:-KEPT]:
            del self._roots[number]
        return {str(number): replace(facts) for number, facts in sorted(self._roots.items())}

    def _take_in(self, peer: PeerLook) -> None:
        if peer.number not in self._roots:
            if peer.state == "absent":
                return
            # A number is never given twice, so this one is new: what was said before is another's.
            self.lines = Lines() if peer.role == "new" else self.lines
            state = RootState.UNKNOWN if peer.state == "lost" else RootState.STARTING
            self._roots[peer.number] = RootFacts(peer.number, peer.role, state, booted_ns=self._clock())
        facts = self._roots[peer.number]
        if _is_over(facts):
            return
        facts.kernel_release = peer.kernel_release or facts.kernel_release
        facts.state = self._state(peer, facts.state)
        if _is_over(facts):
            facts.role = ""
        if peer.role == "new":
            facts.console, facts.splats = self.lines.last, self.lines.splats

    def _state(self, peer: PeerLook, before: RootState) -> RootState:
        match peer.state:
            case "ready":
                return RootState.ALIVE
            case "parked":
                return RootState.ENDED if self._end_wanted(peer.role) else RootState.CRASHED
            case "lost" if before is not RootState.STARTING:
                return RootState.UNKNOWN
        # One that comes up has much to do, and its heart may not beat evenly yet.
        return RootState.STARTING


def _is_over(facts: RootFacts) -> bool:
    return facts.state in (RootState.ENDED, RootState.CRASHED)
