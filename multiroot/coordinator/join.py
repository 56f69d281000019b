# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a new root: until its agent answers, or until what its kernel says shows that it never will."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from multiroot.errors import MultirootError, PeerLostError, WaitTimeoutError
from multiroot.launch.kernel_log import KernelLog
from multiroot.racing import OvertakenError, unless
from multiroot.root.identity import AGENT_SAYS
from multiroot.root.peers import Peer, Peers, SideState
from multiroot.verdict.health import WELL, Health, Verdict, judge

log = logging.getLogger("multirootd")

JOIN_TIMEOUT_S = 180  # unless the user says otherwise
CONSOLES = Path("/var/log/multiroot")
POLL_S = 0.25
# A kernel that has not loaded our module yet and says nothing for this long is stuck. Emulated ones on a busy
# computer were silent for up to 3.3 s once they had spoken, and for up to 54 s while they were unpacked.
STALL_S = 30.0
UNPACK_S = 120.0
# A buffer that says nothing more may have been replaced by a larger one.
SEARCH_AGAIN_S = 4.0
SETTLE_S = 1.0  # what follows a panic is its trace
_SHOWN_MOST = 160

_END = object()


class Console:
    """What a new root's kernel says, line by line, for all who listen."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []

    def subscribe(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener` with each line; returns the function that ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def say(self, line: str) -> None:
        """Tell all listeners."""
        for listener in tuple(self._listeners):
            listener(line)


@dataclass
class BootWatch:
    """Takes in what the kernel says, from `run` until `stop`."""

    kernel_log: KernelLog
    console: Console
    lines: list[str] = field(default_factory=list)
    verdict: Verdict = WELL
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    slowness: float = 1.0  # so many times as long as usual it may be silent

    def stop(self) -> None:
        """Let `run` come back, at once but for a piece of memory that is being read."""
        self.stopped.set()

    @property
    def patience_s(self) -> float:
        """How long it may be silent: much longer before its first word than after it."""
        return self.slowness * (STALL_S if self.lines else UNPACK_S)

    async def run(self, loading: Callable[[], bool]) -> None:
        """Until the kernel is dead, broken, or silent for too long while `loading()`; or until `stop`."""
        now = asyncio.get_running_loop().time
        heard = search_at = now()
        while not self.stopped.is_set():
            looked = now()
            if looked >= search_at:
                await self._search()
                # As long as there is nothing better to do, and then ever more seldom.
                search_at = now() + (max(SEARCH_AGAIN_S, looked - heard) if self.kernel_log.found else 0)
            if await self.listen():
                heard = now()
                search_at = heard + SEARCH_AGAIN_S
            if self.verdict.health >= Health.BROKEN or (loading() and looked - heard >= self.patience_s):
                return
            await self._rest(POLL_S)

    async def listen(self) -> bool:
        """Take in what was said since; False when that is nothing."""
        fresh = await asyncio.to_thread(self.kernel_log.new_lines)
        self.verdict = judge(fresh, self.verdict)
        self.lines.extend(fresh)
        for line in fresh:
            self.console.say(line)
        return bool(fresh)

    async def last_words(self) -> None:
        """Take in what is said in the next moments, too. After `run`."""
        self.stopped.clear()
        if not self.kernel_log.found:
            await self._search()
        until = asyncio.get_running_loop().time() + SETTLE_S
        while await self.listen() or asyncio.get_running_loop().time() < until:
            await asyncio.sleep(POLL_S)

    async def _search(self) -> None:
        """In small pieces, with as much rest in between as they take: VMs run on these CPUs."""
        now = asyncio.get_running_loop().time
        search = self.kernel_log.search()
        while not self.stopped.is_set():
            began = now()
            if await asyncio.to_thread(next, search, _END) is _END:
                return
            await self._rest(min(now() - began, POLL_S))

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)


async def wait_for_join(
    peers: Peers,
    child: Peer,
    watch: BootWatch,
    timeout_s: float,
    learned: Callable[[], Awaitable[None]],
    folder: Path = CONSOLES,
    post_mortem: Callable[[], list[str]] = list,
) -> None:
    """Back when the new root's agent says it is ready and then has `learned` to answer all calls; what that
    raises is raised here. Raises what became of the root instead, as soon as that is known: PeerLostError
    when it has ended, panicked or crashed, WaitTimeoutError when it stands still. All that it said is then
    in a file in `folder`, with what `post_mortem` finds, and the error names it. Who gives it more time to
    join than usual knows that this machine is slow: it may be silent for longer, too.
    """
    watch.slowness = max(1.0, timeout_s / JOIN_TIMEOUT_S)
    coming = asyncio.create_task(_coming(peers, child, timeout_s, learned))
    listening = asyncio.create_task(_listening(watch, lambda: child.state is SideState.STARTED))
    try:
        await asyncio.wait({coming, listening}, return_when=asyncio.FIRST_COMPLETED)
        overdue = coming.done()
        how_long = (
            f"did not join within {timeout_s:g} s" if overdue else f"stood still for {watch.patience_s:g} s"
        )
    finally:
        coming.cancel()
        watch.stop()
        await asyncio.gather(coming, listening, return_exceptions=True)
    listening.result()
    if child.state is SideState.READY and watch.verdict.health < Health.BROKEN:
        return coming.result()
    with _unheard():
        await watch.last_words()
    found = await asyncio.to_thread(post_mortem)
    kept = keep_messages([*watch.lines, *found], child.root, folder)
    longer = f"--timeout {max(1, round(2 * timeout_s))} gives a slow machine longer" if overdue else ""
    raise _trouble(child, watch, how_long, kept, longer)


async def _coming(
    peers: Peers, child: Peer, timeout_s: float, learned: Callable[[], Awaitable[None]]
) -> None:
    """Until its agent has said that it is ready, and has learned the rest, or until it has ended."""

    def ended() -> bool:
        return child.state is SideState.PARKED

    now = asyncio.get_running_loop().time
    until = now() + timeout_s
    await peers.wait(lambda: child.state is SideState.READY or ended(), timeout_s)
    if child.state is not SideState.READY:
        return
    try:
        await unless(learned(), peers.wait(ended, until - now()))
    except OvertakenError:
        if not ended():
            overdue = f"the new root's agent did not answer all calls within {timeout_s:g} s"
            raise WaitTimeoutError(overdue) from None


async def _listening(watch: BootWatch, loading: Callable[[], bool]) -> None:
    with _unheard():
        await watch.run(loading)
        return
    # Also a root that nobody hears can join.
    await watch.stopped.wait()


@contextmanager
def _unheard() -> Iterator[None]:
    """Waiting goes on without its messages when they can't be read."""
    try:
        yield
    except MultirootError as error:
        log.warning("cannot read the new root's messages: %s", error)


def _trouble(child: Peer, watch: BootWatch, how_long: str, hint: str, longer: str) -> MultirootError:
    verdict = watch.verdict
    if died := how_it_died("the new root", verdict):
        return PeerLostError(died, hint)
    last = f"the last it said: {shown(watch.lines[-1])}" if watch.lines else "nothing was heard of it"
    if verdict.health is Health.SLOW:
        last = f"it said: {shown(verdict.line)}"
    if child.state is SideState.PARKED:
        return PeerLostError(f"the new root ended while it came up; {last}", hint)
    complaint = next((line for line in reversed(watch.lines) if AGENT_SAYS in line), "")
    if child.state is SideState.ATTACHED and complaint:
        last = f"its agent does not start: {shown(complaint)}"
    elif child.state is SideState.ATTACHED:
        last = f"its kernel module came up; {last}"
    return WaitTimeoutError(f"the new root {how_long}; {last}", "; ".join(filter(None, (hint, longer))))


def how_it_died(who: str, verdict: Verdict) -> str:
    """What its own messages say of a kernel's death; "" if nothing."""
    how = {Health.DEAD: "panicked", Health.BROKEN: "crashed"}.get(verdict.health)
    return f"{who}'s kernel {how}: {shown(verdict.line)}" if how else ""


def shown(line: str) -> str:
    """A kernel's message as an error names it."""
    return repr(line[:_SHOWN_MOST])


def keep_messages(lines: list[str], root: int, folder: Path) -> str:
    """Write all that was said to a file; returns the hint that names it."""
    if not lines:
        return ""
    path = folder / f"console-root-{root}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        return f"its messages could not be kept in {path}: {error.strerror}"
    return f"all its messages: `cat {path}` in this root; in a lab: `multiroot lab exec -- cat {path}`"
