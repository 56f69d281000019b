# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a root that lives, and of the same root where it has died, looked at from beside it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.launch.kernel_log import KernelLog
from multiroot.ranges import Range
from multiroot.root.memory_client import RootMemory
from multiroot.rpc.client import connect
from multiroot.rpc.v1 import memory_pb2_grpc, vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vmcore import kallsyms
from multiroot.vmcore.core_file import vmcoreinfo_in
from multiroot.vmcore.space import text, word
from multiroot.workbench import debugger

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
STEPS_S = 60.0


class Dump:
    """A core file, read by its own headers."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.head = self._file.read(MIB)
        (count,) = struct.unpack_from("<H", self.head, 56)
        programs = [struct.unpack_from("<IIQQQQQQ", self.head, 64 + 56 * number) for number in range(count)]
        self.loads = [(each[4], each[5], each[2]) for each in programs if each[0] == 1]

    @property
    def largest(self) -> Range:
        """Of its ranges of memory."""
        return max((Range(phys, size) for phys, size, _ in self.loads), key=lambda each: each.size)

    def read_memory(self, phys: int, size: int) -> bytes:
        for start, length, offset in self.loads:
            if start <= phys and phys + size <= start + length:
                self._file.seek(offset + phys - start)
                return self._file.read(size)
        raise AssertionError(hex(phys))

    def find_word(self, phys: int, size: int, word: int) -> int:
        data, wanted = self.read_memory(phys, size), word.to_bytes(8, "little")
        at = data.find(wanted)
        while at >= 0 and at % 8:
            at = data.find(wanted, at + 1)
        return phys + at if at >= 0 else 0


@contextmanager
def memory_of(cli: Cli) -> Iterator[RootMemory]:
    with connect(cli.lab.agent_address, root="old") as channel:
        yield RootMemory.of(memory_pb2_grpc.MemoryServiceStub(channel), "new")


def ticks(cli: Cli, at_least: int = 0) -> int:
    """How many lines the old root's guest has printed, as soon as there are so many."""
    with connect(cli.lab.agent_address) as channel:
        stub = vm_pb2_grpc.VmServiceStub(channel)
        answer = stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=at_least), timeout=300)
    return len(answer.counter)


def test_a_root_is_looked_into_while_it_lives_and_where_it_died(labs_factory: Labs, tmp_path: Path) -> None:
    """Proves that the old root reads the new one's memory while that runs: its release, its clock going on,
    the task of each CPU; that nothing is said of roots that there are not; that after a panic the trace of
    the CPU that panicked leads to its cause, the message is in the dump's log, the dump leaves free pages out
    and is taken by drgn; and that the old root and its VM go on meanwhile.
    """
    lab = labs_factory.fresh(kernel="6.12", vms=1)
    cli = Cli(lab)
    cli.ok("vm", "run", "vm0", "--memory", "128M")
    cli.fails(5, "no root was started from this one", "root", "dump", "new", "-n")
    cli.ok("root", "launch", "--kernel", "6.12")
    release = lab.run(["uname", "-r"], root="new").stdout.strip()

    with memory_of(cli) as memory:
        assert memory.alive
        assert memory.info
        assert memory.info.release == release
        space = memory.tables()
        symbols = kallsyms.read(space, memory.info)
        names = memory.info.symbols["init_uts_ns"] + memory.info.offsets["uts_namespace.name"]
        assert text(space, names + 2 * 65, 65) == release
        clock = symbols.by_name["jiffies_64"]
        before, until = word(space, clock), time.monotonic() + STEPS_S
        while word(space, clock) == before:
            assert time.monotonic() < until
    living = cli.data("root", "backtrace", "new")
    assert isinstance(living, list)
    assert len(living) == int(lab.run(["nproc"], root="new").stdout)
    assert all(each["comm"] and not each["parked"] for each in living)
    cli.fails(2, "root 7 was not started from root 1", "root", "dump", "7", "-n")

    seen = ticks(cli)
    cli.crash_new_root()
    dead = cli.data("root", "backtrace", "new")
    assert isinstance(dead, list)
    names = {each["cpu"]: [place["name"].partition("+")[0] for place in each["places"]] for each in dead}
    assert all(each["parked"] for each in dead)
    panicked = [each for each in names.values() if "sysrq_handle_crash" in each]
    assert len(panicked) == 1
    assert panicked[0][0] in ("panic", "vpanic")
    assert "write_sysrq_trigger" in panicked[0]
    report = crash_report(cli)
    assert report["what"].endswith("panicked: 'Kernel panic - not syncing: sysrq triggered crash'")
    assert any("sysrq_handle_crash" in line for line in report["traces"])
    kept = report["hint"].partition("`cat ")[2].partition("`")[0]
    messages = lab.run(["cat", kept]).stdout.splitlines()
    assert messages[-len(report["traces"]) :] == report["traces"]

    path = tmp_path / "vmcore"
    planned = cli.data("root", "dump", "new", "-n", "--output", str(path))
    assert isinstance(planned, dict)
    assert planned["free"] > 0
    assert not path.exists()
    made = cli.data("root", "dump", "new", "--output", str(path))
    assert isinstance(made, dict)
    assert made["written"] <= made["memory"] - made["free"]
    assert path.stat().st_size == made["file_size"]
    assert path.stat().st_blocks * 512 < made["memory"]
    cli.fails(3, "is there already", "root", "dump", "new", "--output", str(path))
    look_into(path, release)
    cli.fails(2, "no vmlinux with debug information", "root", "drgn", "--core", str(path), "-e", "pass")

    ticks(cli, seen + 20)
    cli.ok("root", "release")
    cli.fails(5, "no root was started from this one", "root", "dump", "new", "-n")


def crash_report(cli: Cli) -> dict[str, Any]:
    """What `update show` tells of a new root that crashed, as soon as it does."""
    until = time.monotonic() + STEPS_S
    while not (found := cli.data("update", "show")["crash"]):  # type: ignore[call-overload]
        assert time.monotonic() < until
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
def test_kernels_of_other_releases_are_looked_into(labs_factory: Labs, tmp_path: Path, kernel: str) -> None:
    """Proves that an old root with 6.12 reads the memory of an older and a newer kernel: traces while it
    lives, and the crash's report; that a root which does not come up stays with --keep until it is released,
    and can be looked into meanwhile; and that a launch is possible after that.
    """
    cli = Cli(labs_factory.get(kernel="6.12"))
    cli.ok("root", "launch", "--kernel", kernel)
    release = cli.lab.run(["uname", "-r"], root="new").stdout.strip()
    living = cli.data("root", "backtrace", "new")
    assert isinstance(living, list)
    # One that runs a program has nothing on its kernel's stack.
    assert all(each["comm"] and not (each["parked"] or each["error"]) for each in living), living
    cli.crash_new_root()
    report = crash_report(cli)
    assert any("sysrq_handle_crash" in line for line in report["traces"]), report
    path = tmp_path / "vmcore"
    cli.ok("root", "dump", "new", "--output", str(path))
    look_into(path, release)
    cli.ok("root", "release")

    never = ("--append", "rdinit=/no-such-init init=/no-such-init")
    cli.fails(5, "it stays as it is: `multiroot root", "root", "launch", "--kernel", kernel, "--keep", *never)
    panicked = cli.data("root", "backtrace", "new")
    assert isinstance(panicked, list)
    assert any("panic" in place["name"] for each in panicked for place in each["places"])
    kept = cli.data("root", "dump", "new", "-n")
    assert isinstance(kept, dict)
    assert kept["release"] == release
    assert "root release" in cli.data("update", "show")["next"]  # type: ignore[call-overload]
    cli.fails(3, "a new root is already started", "root", "launch", "--kernel", kernel)
    cli.ok("root", "release")
    cli.ok("root", "launch", "--kernel", kernel)
    cli.ok("root", "release")


def look_into(path: Path, release: str) -> None:
    """What is in a dump, by what the file itself says."""
    dump = Dump(path)
    info = vmcoreinfo_in(dump.head)
    assert info
    assert info.release == release
    log = KernelLog(dump, dump.largest)
    for _ in log.search():
        pass
    said = [*log.new_lines(), *log.new_lines()]
    assert any("sysrq: Trigger a crash" in line for line in said)
    assert any("Kernel panic - not syncing: sysrq triggered crash" in line for line in said)
    pytest.importorskip("drgn", reason="drgn is not installed: the extra `debug`")
    program = debugger.open_core(path)
    assert release.encode() in program.read(info.symbols["init_uts_ns"], 400)
