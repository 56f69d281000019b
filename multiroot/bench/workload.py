# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guests of a bench do: words for the ticker guest (qemu-lab/guests/README.md); pure."""

from __future__ import annotations

import re

TICKER, DEBIAN = GUESTS = ("ticker", "debian")
BOOT_TIMEOUT_S = 1500.0  # many times what a Debian took on an emulated CPU
PERIOD_MS = 10  # from tick to tick, unless told otherwise
_ENOUGH_MS = 1200
_ENOUGH = 12
_USER_DATA = """#cloud-config
write_files:
  - path: /run/ticks.py
    content: |
      import subprocess, time
      subprocess.run(["cloud-init", "status", "--wait"], stdout=subprocess.DEVNULL)
      subprocess.run(["systemctl", "stop", "serial-getty@ttyS0"])
      subprocess.run(["dmesg", "--console-off"])
      with open("/dev/ttyS0", "wb", buffering=0) as serial:
          serial.write(b"\\n")
          number, due = 0, time.monotonic()
          while True:
              number += 1
              serial.write(b"T %x\\n" % number)
              due = max(due + PERIOD, time.monotonic() - 5 * PERIOD)
              time.sleep(max(0.0, due - time.monotonic()))
runcmd:
  - systemd-run --quiet python3 /run/ticks.py
"""


def words(*, period_ms: int = PERIOD_MS, dirty: int = 0) -> str:
    """For the guest's command line: time from tick to tick, and MiB/s of memory that it rewrites."""
    found = [f"ticker.period={period_ms}"] if period_ms != PERIOD_MS else []
    if dirty:
        found.append(f"ticker.dirty={dirty}")
    return " ".join(found)


def user_data(period_ms: int = PERIOD_MS) -> str:
    """What has a Debian count on its serial port as the ticker does, when it has booted and nobody else says
    anything there.
    """
    return _USER_DATA.replace("PERIOD", str(period_ms / 1000))


def enough_ticks(append: str) -> int:
    """How many ticks are more than a second of the life of a guest that was told `append`."""
    told = re.search(r"\bticker\.period=(\d+)", append)
    return max(_ENOUGH, _ENOUGH_MS // int(told[1]) if told else _ENOUGH_MS // PERIOD_MS)
