# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts the process that keeps a VM's console (`console.py`), which outlives the agent."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack

from multiroot import proc
from multiroot.vm import console
from multiroot.vm.folder import VmFolder
from multiroot.vm.process import listen, started


def spawn(folder: VmFolder, serial: socket.socket, stack: ExitStack) -> None:
    """It has its end of the serial port, and ends by itself when the VMM's end closes. What of it is open
    here is until `stack` ends.
    """
    listener = stack.enter_context(listen(folder.console))
    argv: list[proc.Arg] = [
        sys.executable, "-I", "-S", console.__file__,
        str(serial.fileno()), str(listener.fileno()), folder.console_record,
    ]  # fmt: skip
    started(proc.spawn(argv, log=folder.console_log, pass_fds=(serial.fileno(), listener.fileno())))
