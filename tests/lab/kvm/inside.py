# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what is different under KVM. They run inside an emulated workstation, see test_kvm.py."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import root_life
from cli_driver import Cli
from lab_factory import Labs

from multiroot.bench import handoff, update
from multiroot.bench.names import IN_PLACE, OURS
from multiroot.bench.results import guard, render
from multiroot.lab import agents
from multiroot.lab import lab as labs
from multiroot.lab.lab import Lab, Options
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc import client

Note = Callable[[str, object], None]
# What a kernel says of the features of KVM that it uses.
FEATURES = re.compile(
    r"\] (kvm-clock: using sched offset|kvm-guest: .*|.*KVM setup .*|.*setup PV .*|clocksource: Switch.*)"
)
# By these MSRs a CPU tells KVM where to write for a feature (kernel: Documentation/virt/kvm/x86/msr.rst). The
# lowest bit says that it does, and some of the next ones are flags, too.
WRITES = {0x4B564D01: "kvm-clock", 0x4B564D02: "async PF", 0x4B564D03: "steal time", 0x4B564D04: "PV EOI"}
FLAGS = 0x3F
# Runs in a root: where KVM writes for each of its CPUs, by MSR; without those that it does not know.
READ_MSRS = """
import json, os, sys
found = []
for cpu in sorted(os.listdir("/dev/cpu"), key=int):
    fd = os.open(f"/dev/cpu/{cpu}/msr", os.O_RDONLY)
    for msr in map(int, sys.argv[1:]):
        try:
            found.append((int(cpu), msr, int.from_bytes(os.pread(fd, 8, msr), "little")))
        except OSError:
            continue
print(json.dumps(found))
"""
KEYS = Path("/usr/lib/multiroot/kvmkeys")
KEYS_END_S = 30.0
MINUTES = 4
EVERY_S = 5.0
KINDS = ("CLOCK_MONOTONIC_RAW", "CLOCK_MONOTONIC", "CLOCK_REALTIME")
DRIFT = 1e-7  # more than rounding does, and a hundredth of what NTP steers by
# Runs in a root: COUNT readings, one in EVERY seconds. Each is how far its kernel's clocks are ahead of the
# one that roots stamp with, and how wrong that may be; ns.
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


def command(*words: str, environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multiroot.cli.main", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_workstation_has_kvm_and_builds_nothing(labs_factory: Labs) -> None:
    """Proves that the image has all of the lab, that a probe finds KVM at work, and no network there."""
    phases = Phases("workstation")
    machine, _ = labs.prepare(Options(accelerator="kvm"), phases)
    assert machine.accelerator == "kvm"
    assert {phase.name for phase in phases.finished} <= {PhaseName.PROBE_KVM}
    assert [path.name for path in Path("/sys/class/net").iterdir()] == ["lo"]


@contextmanager
def kvm_unused() -> Iterator[None]:
    """The module can be unloaded in the body: what init started to hold virtual CPUs is ended, then started
    again.
    """
    found = subprocess.run(["busybox", "pidof", KEYS.name], capture_output=True, text=True, check=True)
    for pid in map(int, found.stdout.split()):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            assert select.select([pidfd], [], [], KEYS_END_S)[0], f"{KEYS} does not end"
        finally:
            os.close(pidfd)
    yield
    subprocess.run(["sh", "-c", f"{KEYS} </dev/null >/dev/null 2>&1 &"], check=True)


def test_without_nesting_one_line_says_what_to_do(labs_factory: Labs) -> None:
    """Proves that `lab up` refuses KVM without nesting and names a command that turns it on, and that it
    goes on under TCG where it may choose."""
    labs_factory.make_room()
    with kvm_unused():
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


def test_the_doctor_takes_the_clock_for_what_it_is(two: Lab, record_property: Note) -> None:
    """Proves that the clock source is no fault in either root under KVM, and that the old has no other."""
    for root in ("old", "new"):
        done = two.run(["multiroot", "doctor", "--json"], root=root)
        found = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
        record_property(f"{root} root", found["tsc"]["found"])
        assert found["tsc"]["status"] == "ok"
        assert root == "new" or done.returncode == 0, done.stdout


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
        first, *_, last = json.loads(result.stdout)
        seconds = (last[0] - first[0]) / 1e9
        for name, (before, error), (after, more_error) in zip(KINDS, first[1:], last[1:], strict=True):
            record_property(f"{root} root, {name}", f"{after - before:+} ns in {seconds:.0f} s")
            assert abs(after - before) <= error + more_error + DRIFT * seconds * 1e9, (root, name)


def written(lab: Lab, root: str) -> dict[tuple[int, str], int]:
    """Where KVM writes, by CPU (the root's own numbers) and feature."""
    lab.run(["modprobe", "msr"], root=root)
    result = lab.run(["python3", "-c", READ_MSRS, *map(str, WRITES)], root=root)
    assert result.returncode == 0, result.stderr
    return {(cpu, WRITES[msr]): at & ~FLAGS for cpu, msr, at in json.loads(result.stdout) if at & 1}


def own_memory(lab: Lab, root: str) -> list[range]:
    lines = re.findall(r"([0-9a-f]+)-([0-9a-f]+) : System RAM", read(lab, root, "/proc/iomem"))
    return [range(int(start, 16), int(end, 16) + 1) for start, end in lines]


def writes_only_into_its_own(lab: Lab, root: str, cpus: int) -> str:
    """KVM writes for each of so many CPUs, and all of it into memory of the root that has them. Says what."""
    found, memory = written(lab, root), own_memory(lab, root)
    assert {cpu for cpu, _ in found} == set(range(cpus))
    assert [place for place, at in found.items() if not any(at in piece for piece in memory)] == []
    return ", ".join(sorted({feature for _, feature in found}))


def test_kvm_writes_for_a_cpu_into_memory_of_the_root_that_has_it(two: Lab, record_property: Note) -> None:
    """Proves that no root is written to by what another one has asked KVM for: with two roots; when the new
    one has crashed and the old one has its CPUs again; and when that has retired."""
    for root in ("old", "new"):
        record_property(f"{root} root", writes_only_into_its_own(two, root, 2))
    cli = Cli(two)
    cli.crash_new_root()
    cli.ok("root", "release")
    writes_only_into_its_own(two, "old", 4)
    done = command("update", "--kernel", "6.12", environment=cli.environment)
    assert done.returncode == 0, done.stderr
    record_property("root that has all", writes_only_into_its_own(two, "old", 4))
    assert two.state.resets() == 0


def test_roots_come_and_go(labs_factory: Labs) -> None:
    """Proves that a VM goes to a new root and back, that such roots are released, and that the CPUs and the
    memory of one that crashed come back."""
    lab = labs_factory.fresh(kernel="6.12", vms=1)
    root_life.come_and_go(lab, "--kernel", "6.12")
    root_life.check_quiet(lab)
    labs_factory.discard(lab)


@pytest.mark.timeout(2400)  # both took 690 s alone on two CPUs
def test_each_new_root_takes_over(labs_factory: Labs) -> None:
    """Proves that the old root retires and the new one takes all, twice in a row, and a VM lives through
    both."""
    lab = labs_factory.fresh(kernel="6.12", vms=1)
    root_life.take_over(lab, "6.12", 2, 2, labs_factory.phases)
    root_life.check_quiet(lab)
    labs_factory.discard(lab)


def test_bench_quick(labs_factory: Labs, tmp_path: Path, record_property: Note) -> None:
    """Proves that the benchmark of handoffs runs here, too, with kexec + PMEM, and tells its ratios. No guest
    loses a tick. How long anything takes is told, and not asserted."""
    labs_factory.make_room()
    options = handoff.Options(
        lab=replace(Options(accelerator="kvm"), name=f"test-{os.getpid()}-bench"),
        contenders=guard.CONTENDERS,
        rounds=guard.ROUNDS,
        traced=False,
    )
    run = handoff.run(options, tmp_path, Phases("workstation"))
    failed = [sample for sample in run.samples if sample.failed]
    assert failed == []
    for contender in guard.CONTENDERS:
        blackouts = run.values(contender, "blackout_ns")
        record_property(f"{contender}, blackout in ms", [round(each / 1e6, 1) for each in blackouts])
        assert not any(run.values(contender, "missing_ticks"))
    found = guard.ratios(run)
    assert found.keys() == guard.WATCHED.keys()
    for name, ratio in found.items():
        record_property(name, f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    heads, rows = render.owners_table(run, (OURS, IN_PLACE))
    for row in rows:
        record_property(row[0], dict(zip(heads[1:], row[1:], strict=True)))


def test_a_whole_update_is_measured(labs_factory: Labs, tmp_path: Path, record_property: Note) -> None:
    """Proves that the benchmark of updates runs here, too, and tells how fast the old root's memory is zeroed
    beside what a program here does. How long anything takes is told, and not asserted."""
    labs_factory.make_room()
    lab = replace(Options(accelerator="kvm"), name=f"test-{os.getpid()}-update")
    run = update.run(update.Options(lab, (1,), (OURS,)), tmp_path, Phases("workstation"))
    (sample,) = run.samples
    assert not sample.failed
    for metric in update.METRICS:
        record_property(render.title(metric), render.figure(metric, sample.values[metric]))
    record_property("load", run.header.load)
