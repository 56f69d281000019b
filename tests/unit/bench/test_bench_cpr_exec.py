# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that a QEMU becomes a new one with."""

from __future__ import annotations

from pathlib import Path

from multiroot.bench.in_root.cpr_exec import resuming


def test_it_is_its_own_and_goes_on_from_the_file() -> None:
    first = ["/usr/bin/qemu", "-name", "guest=vm", "-machine", "q35,aux-ram-share=on", "-m", "128"]
    argv = resuming("\0".join(first).encode() + b"\0", Path("/tmp/state"))
    assert argv == [*first, "-incoming", "file:/tmp/state", "-S"]
    again = resuming("\0".join(argv).encode() + b"\0", Path("/tmp/state"))
    assert again == argv, "nothing is added twice"
