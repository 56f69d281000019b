# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel that has its machine for itself may do, and one of two roots may not."""

from __future__ import annotations

import json
import time
from pathlib import Path

from cli_driver import Cli
from lab_factory import Labs

from multiroot.lab.lab import Lab, kernel_name
from multiroot.lab.recorder import console_text

TRIES = Path(__file__).parent / "guest/vetoed.py"
PANIC_S = 120.0
# References to the module, and what becomes of who would turn off its probes.
ALONE = {"held": 0, "ftrace off": "EBUSY"}


def tried(lab: Lab, *arguments: str, root: str = "old") -> dict[str, object]:
    done = lab.run(["python3", "-c", TRIES.read_text(), *arguments], root=root)
    assert done.returncode == 0, done.stderr
    answers: dict[str, object] = json.loads(done.stdout)
    return answers


def console_until(lab: Lab, root: str, words: str) -> str:
    until = time.monotonic() + PANIC_S
    while words not in (text := console_text(lab.state.machine.state, root)):
        assert time.monotonic() < until, text[-2000:]
    return text


def test_beside_another_root_no_kernel_takes_a_roots_place_and_nobody_sends_the_machine_to_sleep(
    labs_factory: Labs,
) -> None:
    """Proves that kexec, sleep and hibernation are refused in both roots while two live, that neither can
    unload its module or turn off the probes by which it does all that, and that a panic of the old root does
    not start the crash kernel that it has loaded: the panic goes on to its end, the machine is not reset, and
    goes on. A root that is alone may kexec.
    """
    kernel = labs_factory.kernel("6.12")
    lab = labs_factory.fresh(kernel=kernel, machine="crash-kernel")
    cli = Cli(lab)
    # Nothing is loaded, which kexec says when it gets that far.
    assert tried(lab, "load", "alone") == {"load": "ok", "kexec": "EINVAL", **ALONE}
    assert lab.run(["cat", "/sys/kernel/kexec_crash_loaded"]).stdout == "1\n"
    checks = json.loads(lab.run(["multiroot", "doctor", "--json"]).stdout)["checks"]
    (found,) = [check["found"] for check in checks if check["id"] == "kernel"]
    assert "a crash kernel is loaded" in found

    cli.ok("root", "launch", "--kernel", kernel_name(kernel))
    refused = {"kexec": "EBUSY", "sleep": "EBUSY", "hibernate": "EBUSY", **ALONE, "held": 1}
    assert tried(lab) == refused
    assert tried(lab, root="new") == refused
    log = lab.run(["dmesg"]).stdout
    assert "another root is alive: no kernel is started in this one's place" in log
    assert "another root is alive: the machine stays awake" in log

    lab.run(["sh", "-c", "(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &"])
    text = console_until(lab, "old", "end Kernel panic")
    assert "another root is alive: the crash kernel is not started" in text
    assert lab.state.alive()
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
