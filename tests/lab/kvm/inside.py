# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what is different under KVM. They run inside an emulated workstation, see test_kvm.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.lab import agents
from multiroot.lab import lab as labs
from multiroot.lab.lab import Lab, Options
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc import client

Note = Callable[[str, object], None]
# What a kernel says of the features of KVM that it uses.
FEATURES = re.compile(
    r"\] (kvm-clock: using sched offset|kvm-guest: .*|.*KVM setup .*|.*setup PV .*|clocksource: Switched .*)"
)
MINUTES = 4
EVERY_S = 5.0
# Runs in a root: COUNT readings, one in EVERY seconds. Each is how far kernel clocks are ahead of the one that
# roots stamp with, and how wrong that may be; ns.
READ_CLOCKS = """
import json, sys, time
from multiroot.arena.atomics import tsc_clock
from multiroot.clocks import difference
khz, count, every = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
ours = tsc_clock(khz)
kinds = (time.CLOCK_MONOTONIC_RAW, time.CLOCK_MONOTONIC, time.CLOCK_REALTIME)
readings = []
for number in range(count):
    found = [difference(lambda: time.clock_gettime_ns(kind), ours, 200) for kind in kinds]
    readings.append([ours(), *([each.ns, each.error_ns] for each in found)])
    time.sleep(every)
print(json.dumps(readings))
"""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multiroot.cli.main", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_workstation_has_kvm_and_builds_nothing(labs_factory: Labs) -> None:
    """Proves that this image has all of the lab, that a probe finds KVM to work, and that there is no network."""
    phases = Phases("workstation")
    machine, _ = labs.prepare(Options(accelerator="kvm"), phases)
    assert machine.accelerator == "kvm"
    assert {phase.name for phase in phases.finished} <= {PhaseName.PROBE_KVM}
    assert [path.name for path in Path("/sys/class/net").iterdir()] == ["lo"]


def test_without_nesting_one_line_says_what_to_do(labs_factory: Labs) -> None:
    """Proves that `lab up` refuses KVM without nesting, with a command that turns it on, and goes on under TCG
    where it may choose."""
    labs_factory.make_room()
    for words in (["-r", "kvm_amd"], ["kvm_amd", "nested=0"]):
        subprocess.run(["modprobe", *words], check=True)
    refused = command("lab", "up", "--dry-run", "--accel", "kvm")
    lines = [line for line in refused.stderr.splitlines() if line.startswith("multiroot: ")]
    assert refused.returncode == 2
    assert len(lines) == 1
    assert "-accel tcg" in command("lab", "up", "--dry-run", "--accel", "auto").stdout
    mend = lines[0].split("`")[1].replace("sudo ", "")
    subprocess.run(["sh", "-c", mend], check=True)
    assert "-accel kvm" in command("lab", "up", "--dry-run", "--accel", "kvm").stdout


@pytest.fixture(scope="module")
def two(labs_factory: Labs) -> Iterator[Lab]:
    """A lab whose new root runs."""
    lab = labs_factory.fresh(kernel="6.12")
    with client.connect(lab.agent_address, root="old") as old:
        agents.status(old, wait=True)
    Cli(lab).ok("root", "launch", "--kernel", "6.12")
    yield lab
    labs_factory.discard(lab)


def read(lab: Lab, root: str, path: str) -> str:
    return lab.run(["cat", path], root=root).stdout.strip()


def test_both_roots_have_the_same_features_of_kvm(two: Lab, record_property: Note) -> None:
    """Proves that the new root, which INIT and SIPI started, uses what the old one uses."""
    source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    seen = []
    for root in ("old", "new"):
        said = two.run(["dmesg"], root=root).stdout.splitlines()
        found = {match[1] for line in said if (match := FEATURES.search(line))}
        record_property(f"{root} root", ", ".join(sorted(found)))
        seen.append((read(two, root, source), found))
    assert seen[0] == seen[1]
    assert seen[0][0] == "kvm-clock"
    assert two.state.resets() == 0


def test_kvm_clock_and_the_clock_that_roots_stamp_with_do_not_drift(two: Lab, record_property: Note) -> None:
    """Proves that moments of kernels' clocks and of the roots' common one can be compared, minutes apart."""
    with client.connect(two.agent_address, root="old") as channel:
        khz = agents.status(channel, wait=True).tsc_khz
    count = int(MINUTES * 60 / EVERY_S)
    words = ["python3", "-c", READ_CLOCKS, str(khz), str(count), str(EVERY_S)]
    with ThreadPoolExecutor(2) as pool:
        results = list(
            pool.map(lambda root: two.run(words, root=root, timeout=MINUTES * 60 + 300), ("old", "new"))
        )
    for root, result in zip(("old", "new"), results, strict=True):
        assert result.returncode == 0, result.stderr
        readings = json.loads(result.stdout)
        record_property(f"{root} root, {khz} kHz", json.dumps([readings[0], *readings[1::6], readings[-1]]))
