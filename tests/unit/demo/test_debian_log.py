# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log of a Debian guest is judged by."""

from __future__ import annotations

from multiroot.demo.debian import complaints_in

FINE = "[    1.0000001] EXT4-fs (vda1): mounted filesystem\n[    2.000000] random: crng init done\n"


def test_trouble_of_the_kernel_and_of_its_disk() -> None:
    assert complaints_in(FINE) == []
    bad = FINE + (
        "[   10.000000] INFO: task fio:99 blocked for more than 120 seconds.\n"
        "[   20.000000] blk_update_request: I/O error, dev vda, sector 8\n"
    )
    hung, disk = complaints_in(bad)
    assert hung.startswith("hung task in deb at 10.000000 s: INFO: task fio:99")
    assert "sector 8" in disk
