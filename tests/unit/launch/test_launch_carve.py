# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.launch import carve
from multiroot.launch.carve import Taken
from multiroot.plan.memory import Way
from multiroot.plan.planner import Plan, PlannedCpu
from multiroot.ranges import Range
from multiroot.units import GIB, MIB

PLAN = Plan(
    cpus=(PlannedCpu(2, 2), PlannedCpu(3, 3)),
    carve=Range(GIB, 256 * MIB),
    way=Way.BLOCKS,
    blocks=(8, 9),
    low=Range(0x20000, 0x20000),
    pmem=(),
)


class FakeSys:
    """A folder like /sys whose switches remember; `deny` makes one of them refuse."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for number in range(4):
            folder = top / f"devices/system/cpu/cpu{number}"
            folder.mkdir(parents=True)
            if number:
                (folder / "online").write_text("1\n")
        for number in (8, 9):
            folder = top / f"devices/system/memory/memory{number}"
            folder.mkdir(parents=True)
            (folder / "state").write_text("online\n")

    def cpu(self, number: int) -> Path:
        return self.top / f"devices/system/cpu/cpu{number}/online"

    def block(self, number: int) -> Path:
        return self.top / f"devices/system/memory/memory{number}/state"

    def states(self) -> list[str]:
        switches = [self.cpu(n) for n in (1, 2, 3)] + [self.block(n) for n in (8, 9)]
        return [switch.read_text().strip() for switch in switches]


@pytest.fixture
def sys(tmp_path: Path) -> FakeSys:
    return FakeSys(tmp_path)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the kernel takes is to be waited for, and it is a fake."""
    monkeypatch.setattr(carve, "CPU_PATIENCE_S", 0.2)
    monkeypatch.setattr(carve, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(carve, "LONGEST_RETRY_S", 0.01)


def deny(
    monkeypatch: pytest.MonkeyPatch, switch: Path, number: int = errno.EBUSY, times: float = math.inf
) -> list[str]:
    """Make the first `times` writes to `switch` fail with errno `number`; returns what is refused."""
    original = Path.write_text
    refused: list[str] = []

    def write_text(self: Path, data: str, *args: object) -> int:
        if self == switch and len(refused) < times:
            refused.append(data)
            raise OSError(number, os.strerror(number))
        return original(self, data)

    monkeypatch.setattr(Path, "write_text", write_text)
    return refused


def settle(sys: FakeSys) -> None:
    """Do what the kernel does: `online_movable` reads back as `online`."""
    for number in (8, 9):
        if sys.block(number).read_text() == "online_movable":
            sys.block(number).write_text("online\n")


BEFORE = ["1", "1", "1", "online", "online"]


def test_take_and_give_back(sys: FakeSys) -> None:
    taken = carve.take(PLAN, sys.top)
    assert taken == Taken((2, 3), (8, 9))
    assert sys.states() == ["1", "0", "0", "offline", "offline"]
    carve.give_back(taken, sys.top)
    assert sys.states() == ["1", "1", "1", "online_movable", "online_movable"]


def test_twice_is_once(sys: FakeSys) -> None:
    sys.cpu(2).write_text("0\n")
    sys.block(9).write_text("offline\n")
    taken = carve.take(PLAN, sys.top)
    assert taken == Taken((3,), (8,))
    assert carve.take(PLAN, sys.top) == Taken()
    carve.give_back(taken, sys.top)
    settle(sys)
    assert sys.states() == ["1", "0", "1", "online", "offline"]
    carve.give_back(taken, sys.top)
    assert sys.states() == ["1", "0", "1", "online", "offline"]


@pytest.mark.parametrize("kind", ["cpu", "block"])
def test_one_that_resists_leaves_everything_as_it_was(
    sys: FakeSys, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    deny(monkeypatch, sys.cpu(3) if kind == "cpu" else sys.block(9))
    message = (
        "CPU 3 can not go offline: it is in use" if kind == "cpu" else "memory block 9 can not go offline"
    )
    with pytest.raises(ConflictError, match=message):
        carve.take(PLAN, sys.top)
    settle(sys)
    assert sys.states() == BEFORE


def test_other_reasons_are_told_at_once(sys: FakeSys, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = deny(monkeypatch, sys.cpu(2), errno.EPERM)
    with pytest.raises(ConflictError, match="CPU 2 can not go offline: Operation not permitted"):
        carve.offline_cpus([2], sys.top)
    assert refused == ["0"]


def test_a_cpu_is_waited_for_while_the_kernel_probes_devices(
    sys: FakeSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = deny(monkeypatch, sys.cpu(2), times=5)
    assert carve.offline_cpus([2], sys.top) == (2,)
    assert refused == ["0"] * 5
    deny(monkeypatch, sys.cpu(2), times=5)
    assert carve.online_cpus([2], sys.top) == (2,)
    assert sys.states() == BEFORE


def test_what_was_changed_is_put_back_when_devices_are_probed_in_between(
    sys: FakeSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(monkeypatch, sys.cpu(3), errno.EPERM)
    original = Path.write_text
    refused: list[str] = []

    def write_text(self: Path, data: str, *args: object) -> int:
        if self == sys.cpu(2) and data == "1" and not refused:
            refused.append(data)
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return original(self, data)

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(ConflictError, match="CPU 3 can not go offline"):
        carve.offline_cpus([2, 3], sys.top)
    assert refused
    assert sys.states() == BEFORE


def test_a_memory_block_is_not_waited_for(sys: FakeSys, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = deny(monkeypatch, sys.block(8))
    with pytest.raises(ConflictError, match="memory block 8 can not go offline: it is in use"):
        carve.offline_blocks([8], sys.top)
    assert refused == ["offline"], "the kernel has waited for its pages"


def test_giving_back_goes_on_past_a_failure(sys: FakeSys, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = carve.take(PLAN, sys.top)
    deny(monkeypatch, sys.cpu(2))
    with pytest.raises(MultirootError, match="CPU 2 can not come online"):
        carve.give_back(taken, sys.top)
    settle(sys)
    assert sys.states()[3:] == ["online", "online"]


def test_what_does_not_exist(sys: FakeSys) -> None:
    with pytest.raises(BadRequestError, match="there is no CPU 9"):
        carve.offline_cpus([9], sys.top)
    with pytest.raises(BadRequestError, match="there is no memory block 5"):
        carve.offline_blocks([5], sys.top)
    with pytest.raises(ConflictError, match="CPU 0 can not go offline"):
        carve.offline_cpus([0], sys.top)
