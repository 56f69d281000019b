# SPDX-License-Identifier: GPL-2.0-or-later
"""One key of a person at the terminal."""

from __future__ import annotations

import os
import sys
import termios
import tty


def wait_for_key() -> None:
    """Until any key is pressed; Ctrl-C does what it always does. Keys pressed before do not count."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        termios.tcflush(terminal, termios.TCIFLUSH)
        os.read(terminal, 1)
        # Some keys send several bytes.
        termios.tcflush(terminal, termios.TCIFLUSH)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
