# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for all tests, whoever starts them."""

from __future__ import annotations

import signal

# Programs that tests start inherit it when these are ignored: under nohup(1), or in a background job.
for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
