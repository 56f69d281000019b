# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a key at a terminal: any key, and the terminal is as it was afterwards."""

from __future__ import annotations

import os
import pty
import sys
import termios
import threading

import pytest

from multiroot.cli.keys import wait_for_key


def test_any_key_and_the_terminal_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(slave)
        waiting = threading.Thread(target=wait_for_key, daemon=True)
        waiting.start()
        # What is typed before it waits does not count, so it is typed again.
        for _ in range(500):
            os.write(master, b"x")
            waiting.join(0.02)
            if not waiting.is_alive():
                break
        assert not waiting.is_alive()
        assert termios.tcgetattr(slave) == before
    os.close(master)
