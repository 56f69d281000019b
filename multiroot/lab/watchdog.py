# SPDX-License-Identifier: GPL-2.0-or-later
"""When is a boot ready, when is it given up: decided from console lines, events and the clock, and
nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GONE = "the machine ended (exit)"  # the verdict on a QEMU that ended without an event
READY_MARKS = frozenset({"exec", "devices"})  # both: it takes commands, its drivers are loaded
_ENDS = ("SHUTDOWN", "GUEST_PANICKED", "EXIT")  # QEMU's events, and the recorder's own
_MARK = re.compile(r"multiroot: mark (\S+) ")
_FATAL = re.compile(r"Kernel panic - not syncing|initramfs: no persistent memory|---\[ end Kernel panic")


def how_ended(message: Mapping[str, Any]) -> str:
    """What a message of the feed, or a recorded event, says of the machine's end; "" if nothing."""
    event, data = message.get("event"), message.get("data")
    if event not in _ENDS:
        return ""
    reason = data.get("reason", "") if isinstance(data, dict) else ""
    return f"{event.lower()} {reason}".strip()


@dataclass(frozen=True)
class Limits:
    """Seconds without a word on the console, and in all, after which a boot is given up. `spoken` is in place
    of `silence` once the kernel has said something; None: the same.
    """

    silence: float = 40.0
    total: float = 240.0
    spoken: float | None = None

    def of_slower(self, slowness: float) -> Limits:
        """Those of a kernel that takes so many times as long."""
        spoken = self.spoken and self.spoken * slowness
        return Limits(self.silence * slowness, self.total * slowness, spoken)


@dataclass
class Watchdog:
    """Feed it what the recorder feeds; `verdict` is None, "ready" or why to give up. Times are ns on
    one clock.
    """

    limits: Limits
    start_ns: int
    heard_ns: int = 0
    _verdict: str | None = field(default=None, init=False)
    _spoken: bool = field(default=False, init=False)
    _marks: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.heard_ns = self.heard_ns or self.start_ns

    def take(self, message: dict[str, Any]) -> None:
        """One message of the feed: a console line or an event."""
        self.heard_ns = max(self.heard_ns, message["ns"])
        if self._verdict:
            return
        if message.get("console") == "old":
            text = message["text"]
            self._spoken = True
            self._marks.update(_MARK.findall(text))
            if self._marks >= READY_MARKS:
                self._verdict = "ready"
            elif _FATAL.search(text):
                self._verdict = f"console: {text.strip()}"
        elif how := how_ended(message):
            self._verdict = f"the machine ended ({how})"

    def verdict(self, now_ns: int) -> str | None:
        if not self._verdict and now_ns >= self.deadline_ns():
            silent = (now_ns - self.heard_ns) / 1e9
            self._verdict = (
                f"not ready after {(now_ns - self.start_ns) / 1e9:.0f} s, silent for {silent:.0f} s"
            )
        return self._verdict

    def deadline_ns(self) -> int:
        """When the boot is given up if nothing more is heard."""
        spoken = self.limits.spoken
        patience = self.limits.silence if spoken is None or not self._spoken else spoken
        silence = self.heard_ns + int(patience * 1e9)
        return min(silence, self.start_ns + int(self.limits.total * 1e9))
