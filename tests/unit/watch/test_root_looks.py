# SPDX-License-Identifier: GPL-2.0-or-later
"""What one root sees: CPUs, memory, neighbours, its kernel's lines, its handoffs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multiroot.device.uapi import CpuState as LedgerState
from multiroot.device.uapi import E820Range, Info, Ledger, LedgerCpu
from multiroot.errors import ConflictError
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.rpc.v1 import coordinator_pb2
from multiroot.watch.facts import CpuFacts, CpuState, MemoryKind, RootState, Stage
from multiroot.watch.handoff_log import KEPT, HandoffLog
from multiroot.watch.kernel_tail import LINES, KernelTail, Lines
from multiroot.watch.known_roots import KnownRoots, PeerLook
from multiroot.watch.machine_look import MachineLook
from multiroot.watch.phase_log import MOST, PhaseLog

IOMEM = """\
00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
100000000-13fffffff : Persistent Memory (legacy)
  100000000-13fffffff : dax0.0
180000000-18fffffff : Persistent Memory
e0000000-efffffff : PCI Bus 0000:00
"""


class Module:
    """The ledger of a machine with four CPUs, of which two were given away."""

    carve = (0x20000000, 0x10000000)

    def __init__(self) -> None:
        self.states = {
            0: LedgerCpu(1, LedgerState.ONLINE),
            1: LedgerCpu(1, LedgerState.ONLINE),
            2: LedgerCpu(2, LedgerState.GRANTED),
            3: LedgerCpu(2, LedgerState.STARTED),
        }

    def ledger(self) -> Ledger:
        return Ledger(3, 2, 0, (E820Range(0, 1 << 30, 1), E820Range(1 << 32, 1 << 20, 2)), dict(self.states))

    def info(self) -> Info:
        base, size = self.carve
        return Info(1, False, False, True, True, 1, 0, 1, 0, 0, 0, base, size, 0, 0)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:00:02.0").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/devices/system/cpu/online").write_text("0\n")
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\napicid\t\t: 0\n\n")
    (tmp_path / "proc/iomem").write_text(IOMEM)
    return tmp_path


def test_cpus_by_the_ledger_and_those_of_this_root_by_its_kernel(top: Path) -> None:
    module = Module()
    look = MachineLook(module, 1, lambda: 0x100200000, top)
    assert look.cpus(look.ledger(), ()) == {
        "0": CpuFacts(1, 0, CpuState.ONLINE),
        "1": CpuFacts(1, None, CpuState.OFFLINE),
        "2": CpuFacts(2, None, CpuState.GRANTED),
        "3": CpuFacts(2, None, CpuState.ONLINE),
    }
    (top / "sys/devices/system/cpu/online").write_text("0-1\n")
    (top / "proc/cpuinfo").write_text("processor\t: 0\napicid\t\t: 0\n\nprocessor\t: 1\napicid\t\t: 3\n\n")
    module.states[3] = LedgerCpu(1, LedgerState.ONLINE)
    module.states[2] = LedgerCpu(2, LedgerState.PARKED)
    seen = look.cpus(look.ledger(), {3})
    assert seen["3"] == CpuFacts(1, 1, CpuState.ADOPTED)
    assert seen["2"] == CpuFacts(0, None, CpuState.PARKED)
    assert look.machine(look.ledger()).cpus == 4
    assert look.machine(look.ledger()).memory_bytes == 1 << 30


def test_memory_has_the_arena_the_images_and_the_carve(top: Path) -> None:
    look = MachineLook(Module(), 1, lambda: 0x100200000, top)
    seen = look.memory(look.ledger(), 2)
    assert {key: (each.kind, each.root, each.size) for key, each in seen.items()} == {
        "0x100000": (MemoryKind.SYSTEM, 1, 0x3FF00000),
        "0x100000000": (MemoryKind.ARENA, 0, 0x40000000),
        "0x180000000": (MemoryKind.IMAGE, 0, 0x10000000),
        "0x20000000": (MemoryKind.CARVE, 2, 0x10000000),
    }
    Module.carve = (0, 0)
    try:
        assert "0x20000000" not in look.memory(look.ledger(), 2)
    finally:
        Module.carve = (0x20000000, 0x10000000)
    assert look.devices() == ["0000:00:02.0"]


def test_ram_that_the_firmware_has_and_this_root_has_not_is_spare(top: Path) -> None:
    # Set aside at boot for a second kernel, or another root's.
    (top / "proc/iomem").write_text("00100000-2fffffff : System RAM\n30000000-3fffffff : Reserved\n")
    look = MachineLook(Module(), 1, lambda: None, top)
    spare = [each for each in look.memory(look.ledger(), 2).values() if each.kind is MemoryKind.SPARE]
    assert [(each.start, each.size, each.root) for each in spare] == [(0x30000000, 0x10000000, 0)]


def peer(state: str, role: str = "new", number: int = 2) -> list[PeerLook]:
    return [PeerLook(number, role, state, "7.0")]


def test_a_new_root_starts_lives_falls_silent_and_crashes() -> None:
    wanted: set[str] = set()
    known = KnownRoots(lambda: 7, wanted.__contains__)
    assert known.look(peer("absent")) == {}
    for state, seen in (
        ("started", RootState.STARTING),
        ("attached", RootState.STARTING),
        ("lost", RootState.STARTING),
        ("ready", RootState.ALIVE),
        ("lost", RootState.UNKNOWN),
        ("ready", RootState.ALIVE),
        ("parked", RootState.CRASHED),
    ):
        (facts,) = known.look(peer(state)).values()
        assert facts.state is seen
    # That it is taken back afterwards does not change what it was.
    wanted.add("new")
    assert known.look([])["2"].state is RootState.CRASHED
    seen_next = known.look(peer("ready", number=3))
    assert {number: each.state for number, each in seen_next.items()} == {
        "2": RootState.CRASHED,
        "3": RootState.ALIVE,
    }


def test_a_root_that_is_lost_when_it_is_first_seen_is_unknown() -> None:
    known = KnownRoots(lambda: 7, lambda _: False)
    assert known.look(peer("lost"))["2"].state is RootState.UNKNOWN


def test_a_root_that_is_given_back_or_has_retired_has_ended() -> None:
    known = KnownRoots(lambda: 7, lambda role: role == "old")
    known.look([*peer("ready"), *peer("ready", "old", 1)])
    seen = known.look(peer("parked", "old", 1))
    assert {number: each.state for number, each in seen.items()} == {
        "1": RootState.ENDED,
        "2": RootState.ENDED,
    }
    assert all(each.role == "" for each in seen.values())


def test_what_a_new_kernel_says_belongs_to_it_alone_and_few_ended_roots_are_kept() -> None:
    known = KnownRoots(lambda: 7, lambda _: True)
    for number in range(2, 12):
        known.look(peer("started", number=number))
        known.lines.add([f"[    1.0] Linux version {number}", "Kernel panic - not syncing: x"])
        facts = known.look(peer("started", number=number))[str(number)]
        assert facts.console == [f"[    1.0] Linux version {number}", "Kernel panic - not syncing: x"]
        assert facts.splats == ["Kernel panic - not syncing: x"]
        assert len(known.look([])) <= 4


def test_lines_are_few_short_and_printable() -> None:
    lines = Lines()
    lines.add(f"line {number} \x1b[31m{'x' * 500}" for number in range(100))
    lines.add(["", "\r", "[   12.5] BUG: unable to handle page fault"])
    assert len(lines.last) == LINES
    assert all(len(each) <= 160 and each.isprintable() for each in lines.last)
    assert lines.splats == ["[   12.5] BUG: unable to handle page fault"]


def test_the_kernels_log_is_read_on(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    os.mkfifo(log)
    tail = KernelTail(log)
    with log.open("wb", buffering=0) as file:
        file.write(b"6,1,100,-;hello\n SUBSYSTEM=x\n")
        tail.read()
        assert tail.lines.last == ["hello"]
    tail.read()
    assert tail.lines.last == ["hello"]
    tail.close()
    tail.read()
    KernelTail(tmp_path / "none").read()


def test_handoffs_are_noted_from_beginning_to_end_and_bounded() -> None:
    rings: list[int] = []
    log = HandoffLog(1, lambda: 40, lambda: rings.append(1))
    log.begin("vm0", 2, 7)
    assert log.all()["vm0/8"].stage is Stage.PREPARING
    log.end("vm0", None, ConflictError("no room"))
    assert (log.all()["vm0/8"].stage, log.all()["vm0/8"].error) == (Stage.STAYED, "no room")
    log.begin("vm0", 2, 8)
    result = coordinator_pb2.HandoffResult(
        name="vm0", device_state_bytes=70_000, epoch=9, stopped_ns=100, resumed_ns=190
    )
    log.end("vm0", result, None)
    done = log.all()["vm0/9"]
    assert (done.stage, done.stopped_ns, done.resumed_ns, done.ram_bytes_copied) == (Stage.DONE, 100, 190, 0)
    assert log.settled == {Stage.STAYED: 1, Stage.DONE: 1}
    assert len(rings) == 4
    log.end("nobody", None, None)
    for epoch in range(100):
        log.begin("vm1", 2, epoch)
    assert len(log.all()) == KEPT


def test_phases_run_until_they_end_and_adopted_cpus_are_known() -> None:
    rings: list[int] = []
    phases = Phases("root 2", lambda: 3)
    log = PhaseLog(phases, lambda: rings.append(1))
    with phases.phase(PhaseName.PREPARE, vm="vm0"):
        assert [(each.name, each.vm) for each in log.running().values()] == [("prepare", "vm0")]
    assert log.running() == {}
    with phases.phase(PhaseName.ADOPT_CPU, hardware_id=3):
        pass
    assert log.adopted == {3}
    for number in range(2 * MOST):
        phases.publish(Phase(f"p{number}", "root 2", number))
    assert len(log.running()) == MOST
    assert len(rings) == 4 + 2 * MOST
