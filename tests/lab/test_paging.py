# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots with page tables of 5 levels and of 4, beside each other and one after the other."""

from __future__ import annotations

import pytest
import root_life
from cli_driver import Cli
from kernel_trouble import trouble
from lab_factory import Labs

from multiroot.lab.lab import Lab

FOUR = "no5lvl"  # on a kernel's command line


def levels(lab: Lab, root: str = "old") -> int:
    """Those of a root's page tables: its kernel has the flag only while it uses the feature."""
    return 5 if " la57" in lab.run(["cat", "/proc/cpuinfo"], root=root).stdout else 4


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("old", "new"), [("", FOUR), (FOUR, "")], ids=["5-4", "4-5"])
def test_roots_with_other_page_tables_follow_each_other(labs_factory: Labs, old: str, new: str) -> None:
    """Proves that a root whose page tables have 5 levels launches one whose tables have 4, and the other way
    round; that a VM goes there and back; that the new root's CPUs come back when it is released and when it
    has crashed; that the old root retires, and the new one wakes its parked CPUs, the machine's boot CPU
    among them; that the next generation, which is as the first one was, does the same; and that the VM lives
    through it."""
    lab = labs_factory.fresh(append=old, vms=1)
    cli = Cli(lab)
    wanted = {"old": 4 if old else 5, "new": 4 if new else 5}
    assert levels(lab) == wanted["old"]

    def check_new() -> None:
        assert levels(lab, "new") == wanted["new"]
        assert trouble(lab, "new") == []

    root_life.come_and_go(lab, "--kernel", "6.12", "--append", new, while_both=check_new)
    assert trouble(lab) == []

    cli.ok("vm", "run", "web", "--memory", "128M")
    for append, has in ((new, wanted["new"]), (old, wanted["old"])):
        root_life.update(lab, "--kernel", "6.12", "--append", append)
        assert lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout == "0-3\n"
        assert levels(lab) == has
        cli.goes_on("web")
        assert trouble(lab) == []
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
