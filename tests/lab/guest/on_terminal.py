# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a program on a terminal of its own: python3 on_terminal.py COLUMNS ROWS SECONDS WORDS...

Prints what the program wrote until it was told to end (Ctrl-C) after so many seconds, and ends as it did.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

columns, rows, seconds = (int(word) for word in sys.argv[1:4])
child, terminal = pty.fork()
if not child:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[4], sys.argv[4:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
until, told = time.monotonic() + seconds, False
while True:
    left = until - time.monotonic()
    if left <= 0 and not told:
        os.kill(child, signal.SIGINT)
        told = True
    if not select.select([terminal], [], [], max(left, 0) if not told else None)[0]:
        continue
    try:
        data = os.read(terminal, 1 << 16)
    except OSError:  # that is how the end of a terminal is told
        break
    sys.stdout.buffer.write(data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
