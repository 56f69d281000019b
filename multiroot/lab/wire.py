# SPDX-License-Identifier: GPL-2.0-or-later
"""What is at the other end of a lab machine's network card: numbered frames (qemu-lab/guests/README.md)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from multiroot.errors import MultirootError

_HEAD = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5"  # to all, from us, Ethernet type 0x88b5
_LOOK_S = 1.0  # a card that nobody drives takes no frame: so long until it is seen that we are to stop
_FRAME = 64  # bytes, the smallest without its checksum being 60


class Sender:
    """Sends a frame every `period` s to a card's datagram socket, from `with` on until its end.

    `sent` is the number of the last one; the first is 1. `times` says when each was taken by the card's
    emulator, in ns of our monotonic clock, from number 1 on. A frame that the machine's emulator could not
    take at once is waited for, so none is lost before it reaches the card.
    """

    def __init__(self, card: Path, period: float = 0.01) -> None:
        self._card = card
        self._period = period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: OSError | None = None
        self.times: list[int] = []

    @property
    def sent(self) -> int:
        return len(self.times)

    def between(self, start_ns: int, end_ns: int) -> int:
        """How many frames the card took in that time."""
        return sum(start_ns <= at < end_ns for at in list(self.times))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End it; the number of the last frame. Raises MultirootError if sending failed."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise MultirootError(f"cannot send to {self._card}: {self._error.strerror}")
        return self.sent

    def _run(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.settimeout(_LOOK_S)
            while not self._stop.wait(self._period):
                frame = (_HEAD + struct.pack("<Q", self.sent + 1)).ljust(_FRAME, b"\0")
                try:
                    wire.sendto(frame, str(self._card))
                except TimeoutError:
                    # The card takes none now; the same frame again, unless it is time to stop.
                    continue
                except OSError as error:
                    self._error = error
                    return
                self.times.append(time.monotonic_ns())
