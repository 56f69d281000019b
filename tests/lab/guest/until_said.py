# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a program until it has said something, ends it with Ctrl-C, and prints all that it said.

python3 until_said.py COLUMNSxROWS WORDS PROGRAM... gives it a terminal of that size, and with "-" in place of
a size it gives it none. Ends as the program did.
"""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios

size, words, *argv = sys.argv[1:]
if size == "-":
    output, at_end = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(at_end, 1)
        os.execvp(argv[0], argv)
    os.close(at_end)
else:
    columns, rows = map(int, size.split("x"))
    child, output = pty.fork()
    if not child:
        # Before it begins: it asks for the size once.
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.environ["TERM"] = "xterm"
        os.execvp(argv[0], argv)
said, told = b"", False
while True:
    try:
        data = os.read(output, 1 << 16)
    except OSError:  # that is how the end of a terminal is told
        break
    if not data:
        break
    said += data
    if words.encode() in said and not told:
        os.kill(child, signal.SIGINT)
        told = True
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
