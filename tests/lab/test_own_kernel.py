# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM with a kernel and an initrd of a user's goes along, reboots and starts anew in every root."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.lab import lab as labs
from multiroot.lab.lab import Options
from multiroot.phases import Phases

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

BOOT_S = 300  # nested emulation may take so long for a boot and two seconds of ticks
REBOOTED = "the guest rebooted"
KERNEL = "7.x"
INITRD = "/usr/lib/multiroot/guests/ticker/initrd"


def shown(cli: Cli) -> dict[str, Any]:
    data = cli.data("vm", "show", "own")
    assert isinstance(data, dict)
    return data


def reboots(cli: Cli) -> None:
    """Its guest reboots by itself once more, in the root where it is."""
    before = [each["at_ns"] for each in shown(cli)["notices"] if each["what"] == REBOOTED]
    until = time.monotonic() + BOOT_S
    while True:
        data = shown(cli)
        found = [each["at_ns"] for each in data["notices"] if each["what"] == REBOOTED]
        if found[-1:] > before[-1:]:
            return
        assert data["state"] == "running", data
        assert time.monotonic() < until, data
        time.sleep(0.5)  # nobody tells of it yet


def kept(cli: Cli) -> list[str]:
    return [each["name"] for each in cli.lab_data("arena", "show")["extents"]]


def test_a_kernel_of_a_users_goes_along_and_starts_in_every_root(labs_factory: Labs, tmp_path: Path) -> None:
    """Proves that a VM runs a kernel and an initrd that are files of the workstation; that its guest reboots
    in the root where it started, in one that it was handed to, and back again; that it is stopped and started
    anew after an update with retire, and, when it was stopped, after the next one; all that with a CPU that
    is the root's where it starts; that what is no kernel is refused; and that nothing is left of it when it
    is removed.
    """
    lab = labs_factory.fresh(kernels=("6.12", KERNEL))
    cli = Cli(lab)
    _, built = labs.prepare(Options(kernels=("6.12", KERNEL)), Phases("workstation"))
    kernel, initrd = built.kernels[KERNEL].vmlinuz, tmp_path / "initrd"
    initrd.write_bytes(base64.b64decode(lab.run(["base64", INITRD]).stdout))
    own = ("--kernel", str(kernel), "--initrd", str(initrd))
    more = ("--memory", "192M", "--cpu", "host", "--append", "ticker.region=4 ticker.reboot=200")

    cli.refused(2, f"{initrd}: this is no kernel", "vm", "run", "own", "--kernel", str(initrd))
    cli.refused(2, "does not come up in 32 MiB", "vm", "run", "own", "--memory", "32M", *own)
    assert kept(cli) == []
    cli.ok("vm", "run", "own", *own, *more)
    digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in (kernel, initrd)]
    names = [f"sha256:{digest}" for digest in digests]
    assert [shown(cli)["kernel"], shown(cli)["initrd"]] == names
    reboots(cli)
    release = built.kernels[KERNEL].release
    assert f"Linux version {release}" in cli.ok("vm", "console", "own", "--no-follow")

    cli.ok("root", "launch", "--kernel", "6.12")
    cli.ok("handoff", "own")
    reboots(cli)
    cli.ok("handoff", "own", "--to", "old")
    reboots(cli)
    cli.ok("root", "release")

    cli.ok("update", "--kernel", "6.12")
    reboots(cli)
    cli.ok("vm", "stop", "own", "--force")
    cli.ok("vm", "start", "own")
    reboots(cli)
    cli.ok("vm", "stop", "own", "--force")
    cli.ok("update", "--kernel", KERNEL)
    assert [shown(cli)["kernel"], shown(cli)["initrd"]] == names
    cli.ok("vm", "start", "own")
    reboots(cli)
    assert len([name for name in kept(cli) if name.startswith(".file-")]) == 2
    cli.ok("vm", "rm", "own", "--force")
    assert [name for name in kept(cli) if name.startswith((".file-", ".home-"))] == []
    assert lab.state.resets() == 0
