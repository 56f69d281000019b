# SPDX-License-Identifier: GPL-2.0-or-later
"""The roots next to this one: their state in the shared control pages, their heartbeats, their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from multiroot.errors import PeerLostError
from multiroot.net.addresses import CHILD_PORT, MAX_ROOT, PARENT_PORT, agent_target
from multiroot.rpc.server import parse_root_name

BEAT_S = 0.1
# An agent whose heartbeat stands still for this long is lost; eight missed beats, well under a second.
LOST_NS = 800_000_000
# One that stands still this long is gone: what was under way with it is given up. A busy machine may well
# stop an agent for a second or two, and a guest that still runs can wait.
GONE_NS = 5_000_000_000


class Role(StrEnum):
    """What a peer is to this root."""

    PARENT = "parent"
    CHILD = "child"


class SideState(IntEnum):
    """enum MULTIROOT_SIDE_* of csrc/kmod/uapi/multiroot.h."""

    ABSENT = 0
    STARTED = 1
    ATTACHED = 2
    READY = 3
    PARKED = 4


_STATES = frozenset(SideState)
_BEATS_END = 1 << 64  # the word in the page


class Side(Protocol):
    """One root's half of a control page (struct multiroot_side)."""

    state: int
    root: int
    heartbeat: int
    heartbeat_tsc: int
    ready_tsc: int
    attached_tsc: int

    @property
    def release(self) -> str: ...


class ControlPage(Protocol):
    """The page two roots share, seen from one of them."""

    @property
    def mine(self) -> Side: ...

    @property
    def theirs(self) -> Side: ...


@dataclass(frozen=True)
class PeerView:
    """A peer as it looks now; `heartbeat_age_ns` is -1 before its first beat.

    `address` is empty when the peer says that it is a root of a number that has none.
    """

    role: Role
    root: int
    state: str
    heartbeat_age_ns: int
    address: str
    kernel_release: str


class Peer:
    """One neighbouring root, watched through its control page.

    The peer can write to all of the page. `root` is its number as it was when it was attached.
    """

    def __init__(self, role: Role, page: ControlPage, clock: Callable[[], int]) -> None:
        self.role = role
        self._page = page
        self._clock = clock
        self.root = page.theirs.root
        self._seen_beat = page.theirs.heartbeat
        # Of a root that says it is ready a beat is due from now on. One that comes up has not begun to beat.
        self._seen_at = clock() if page.theirs.state == SideState.READY else -1
        self._looked_at = -1
        self._beat_since = -1
        self.lost = False
        self.gone = False

    @property
    def address(self) -> str:
        """The gRPC target on which the peer's agent listens for this root."""
        return agent_target(self.root, PARENT_PORT if self.role is Role.PARENT else CHILD_PORT)

    @property
    def state(self) -> SideState:
        """What the peer (or its parent, for STARTED) wrote last; ABSENT for what no root writes."""
        written = self._page.theirs.state
        return SideState(written) if written in _STATES else SideState.ABSENT

    @property
    def attached_tsc(self) -> int:
        """TSC ticks when the peer's module came up, 0 before."""
        return self._page.theirs.attached_tsc

    @property
    def ready_tsc(self) -> int:
        """TSC ticks when the peer's agent first answered, 0 before."""
        return self._page.theirs.ready_tsc

    @property
    def ready(self) -> bool:
        """True while the peer's agent answers, by its heartbeat."""
        return self.state is SideState.READY and not self.lost

    @property
    def beat_since_ns(self) -> int:
        """A moment since which its heartbeat has moved, -1 before; later than that is not claimed."""
        return self._beat_since

    def beat(self, tsc: int) -> None:
        """Raise our own heartbeat and look at the peer's. Called every BEAT_S seconds."""
        mine = self._page.mine
        mine.heartbeat_tsc = tsc
        mine.heartbeat = (mine.heartbeat + 1) % _BEATS_END
        now = self._clock()
        beat = self._page.theirs.heartbeat
        if beat != self._seen_beat:
            self._seen_beat, self._seen_at = beat, now
            self._beat_since = self._looked_at
        self._looked_at = now
        age = now - self._seen_at if self._seen_at >= 0 else 0
        parked = self.state is SideState.PARKED
        self.lost = parked or age > LOST_NS
        self.gone = parked or age > GONE_NS

    def view(self) -> PeerView:
        """A snapshot for status answers."""
        return PeerView(
            role=self.role,
            root=self.root,
            state="lost" if self.lost and self.state is not SideState.PARKED else self.state.name.lower(),
            heartbeat_age_ns=self._clock() - self._seen_at if self._seen_at >= 0 else -1,
            address=self.address if 1 <= self.root <= MAX_ROOT else "",
            kernel_release=self._page.theirs.release,
        )


class Peers:
    """All neighbouring roots and the beat that keeps them informed."""

    def __init__(
        self, tsc: Callable[[], int], clock: Callable[[], int], changed: Callable[[], None] = lambda: None
    ) -> None:
        """`changed` is called when something about a peer may have changed."""
        self._tell = changed
        self._tsc = tsc
        self._clock = clock
        self._peers: dict[Role, Peer] = {}
        self._changed = asyncio.Event()

    def attach(self, role: Role, page: ControlPage) -> Peer:
        """Start to watch the peer behind `page`."""
        peer = Peer(role, page, self._clock)
        self._peers[role] = peer
        return peer

    def detach(self, role: Role) -> None:
        """Stop to watch; the page may be unmapped afterwards."""
        self._peers.pop(role, None)
        self.notify()

    def get(self, role: Role) -> Peer | None:
        """The peer in that role, if there is one."""
        return self._peers.get(role)

    def all(self) -> list[Peer]:
        """Parent first."""
        return [self._peers[role] for role in Role if role in self._peers]

    def beats(self) -> dict[int, int]:
        """For each root whose agent answers, by number, a moment since which its heart has beaten, ns."""
        return {
            peer.root: peer.beat_since_ns for peer in self.all() if peer.ready and peer.beat_since_ns >= 0
        }

    def by_name(self, name: str) -> Peer:
        """The peer meant by "old", "new" or a number; raises PeerLostError when there is none."""
        for peer in self.all():
            if name == ("old" if peer.role is Role.PARENT else "new") or name == str(peer.root):
                return peer
        called = f"root {name}" if name.isdecimal() else f"{name} root"
        raise PeerLostError(f"there is no {called} beside this one", "see `multiroot root list`")

    def is_me(self, name: str, root: int) -> bool:
        """Whether "old", "new" or a number means this root, number `root`; raises BadRequestError."""
        wanted = parse_root_name(name)
        if isinstance(wanted, int):
            return wanted == root
        return (name == "new") == (Role.PARENT in self._peers and Role.CHILD not in self._peers)

    def notify(self) -> None:
        """Something about a peer may have changed (doorbell, beat): wake up who waits."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._tell()

    async def wait(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until `condition` holds, looked at whenever a peer may have changed; False when time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True

    async def run(self) -> None:
        """Beat for ever. Changes are noticed here too, in case a peer died before it could ring."""
        before: list[tuple[bool, bool, SideState]] = []
        while True:
            tsc = self._tsc()
            for peer in self.all():
                peer.beat(tsc)
            now = [(peer.lost, peer.gone, peer.state) for peer in self.all()]
            if now != before:
                self.notify()
            before = now
            await asyncio.sleep(BEAT_S)
