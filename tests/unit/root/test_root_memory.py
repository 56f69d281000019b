# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's memory, from the module to a core file: all of it, only of the root that was meant, or nothing."""

from __future__ import annotations

import asyncio
import errno
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from root.carve_fakes import CARVE, LOW, SHARED, Device, Info
from vmcore.small_kernel import BASE, LINEAR, RELEASE, SIZE

from multiroot.errors import BadRequestError, ConflictError, MultirootError, PeerLostError
from multiroot.ranges import Range
from multiroot.root import memory_client
from multiroot.root.memory_client import RootMemory
from multiroot.root.memory_service import PIECE, MemoryParts, MemoryService, not_zero
from multiroot.root.peers import Role
from multiroot.rpc.v1 import memory_pb2
from multiroot.units import KIB, MIB, PAGE
from multiroot.vmcore import core_file
from multiroot.vmcore.space import UnmappedError


@dataclass
class Child:
    root: int = 2
    state: str = "parked"

    def view(self) -> Any:
        return memory_pb2.RootMemory(state=self.state, kernel_release=RELEASE)


class Peers:
    def __init__(self, child: Child | None) -> None:
        self.child = child

    def get(self, role: Role) -> Child | None:
        return self.child if role is Role.CHILD else None


class Stub:
    """A client's, without a network in between."""

    def __init__(self, device: Device, child: Child | None = None) -> None:
        self.peers = Peers(child or Child())
        self.service = MemoryService(MemoryParts(device, self.peers, 1))  # type: ignore[arg-type]

    def Describe(self, request: Any, timeout: float) -> Any:
        return asyncio.run(self.service.Describe(request, None))

    def Read(self, request: Any, timeout: float) -> Any:
        async def collect() -> list[Any]:
            return [piece async for piece in self.service.Read(request, None)]

        return asyncio.run(collect())


def memory_of(device: Device, child: Child | None = None, name: str = "new") -> RootMemory:
    return RootMemory.of(Stub(device, child), name)


def ignore(done: int, total: int) -> None:
    assert 0 < done <= total


def test_what_there_is() -> None:
    memory = memory_of(Device())
    assert memory.ranges == (LOW, Range(CARVE.base, 2 * MIB), Range(BASE, SIZE))
    assert memory.info is not None
    assert memory.info.release == RELEASE
    assert not memory.alive


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("old", BadRequestError, "root 1 runs the agent"),
        ("1", BadRequestError, "root 1 runs the agent"),
        ("7", BadRequestError, "root 7 was not started from root 1"),
        ("x", BadRequestError, "not a root"),
    ],
)
def test_another_root(name: str, error: type[MultirootError], text: str) -> None:
    with pytest.raises(error, match=text):
        memory_of(Device(), name=name)


def test_no_root() -> None:
    stub = Stub(Device())
    stub.peers.child = None
    with pytest.raises(PeerLostError, match="no root was started from this one"):
        RootMemory.of(stub, "new")
    with pytest.raises(PeerLostError, match="no root was started"):
        memory_of(Device(told=Info(carve_size=0)))


def test_a_root_that_is_released_meanwhile_is_not_mistaken_for_the_next() -> None:
    device = Device()
    stub = Stub(device)
    memory = RootMemory.of(stub, "new")
    stub.peers.child = Child(root=3)
    with pytest.raises(PeerLostError, match="root 2 was released"):
        memory.read(BASE, 8)


def test_nothing_else_is_read() -> None:
    stub = Stub(Device())
    for start, size in ((SHARED, 8), (BASE + SIZE - 4, 8), (0, 1 << 40), (BASE, SIZE + 1)):
        request = memory_pb2.ReadMemoryRequest(root=2)
        request.ranges.add(start=start, size=size)
        with pytest.raises(BadRequestError, match="has no memory at"):
            stub.Read(request, 1)
    with pytest.raises(UnmappedError):
        memory_of(Device()).read(SHARED, 8)


def test_a_dump_has_each_byte_at_its_place(tmp_path: Path) -> None:
    some = random.Random(5)
    device = Device(other={LOW.base + 5: b"low", CARVE.base + MIB: b"boot"})
    for _ in range(40):
        device.kernel.put_phys(BASE + some.randrange(0x200, 0x300) * PAGE, some.randbytes(PAGE))
    memory = memory_of(device)
    dump = memory_client.plan(memory, without_free=False)
    path = tmp_path / "vmcore"
    written = memory_client.write(memory, dump, path, ignore)
    data = path.read_bytes()
    assert len(data) == dump.core.size
    assert path.stat().st_mode & 0o777 == 0o600
    assert dump.core.linear == LINEAR
    found = core_file.vmcoreinfo_in(data[:MIB])
    assert found
    assert found.text == device.kernel.text
    for each in memory.ranges:
        at = dump.core.offset_of(each.base, each.size)
        assert data[at : at + each.size] == device.read_memory(each.base, each.size)
    # Zeros take no room.
    assert written < 400 * KIB
    assert path.stat().st_blocks * 512 < MIB


def test_free_pages_are_not_in_it(tmp_path: Path) -> None:
    device = Device()
    device.kernel.set_free(600, 3)
    device.kernel.put_phys(BASE + 600 * PAGE, b"secret of a process that has ended")
    memory = memory_of(device)
    dump = memory_client.plan(memory, without_free=True)
    assert dump.free == 8 * PAGE
    memory_client.write(memory, dump, tmp_path / "vmcore", ignore)
    assert b"secret of a process" not in (tmp_path / "vmcore").read_bytes()


def test_where_free_pages_cannot_be_told() -> None:
    device = Device()
    device.kernel.put_phys(device.kernel.at, device.kernel.text.replace(b"SIZE(page)", b"SIZE(cage)"))
    with pytest.raises(MultirootError, match="does not say page"):
        memory_client.plan(memory_of(device), without_free=True)
    assert memory_client.plan(memory_of(device), without_free=False).free == -1


def test_a_kernel_that_has_not_come_so_far(tmp_path: Path) -> None:
    device = Device()
    device.kernel.put_phys(device.kernel.at, bytes(8))
    memory = memory_of(device)
    assert memory.info is None
    with pytest.raises(PeerLostError, match="no VMCOREINFO in the memory of root 2"):
        memory_client.need_info(memory)
    dump = memory_client.plan(memory, without_free=False)
    memory_client.write(memory, dump, tmp_path / "vmcore", ignore)
    assert (tmp_path / "vmcore").stat().st_size == dump.core.size


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memory_client, "_fill", fill)
    memory = memory_of(Device())
    with pytest.raises(MultirootError, match=r"no space is left for .*vmcore.*up to 6 MiB"):
        memory_client.write(
            memory, memory_client.plan(memory, without_free=False), tmp_path / "vmcore", ignore
        )
    assert not list(tmp_path.iterdir())


def test_a_dump_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    device = Device()
    stub = Stub(device)
    memory = RootMemory.of(stub, "new")
    dump = memory_client.plan(memory, without_free=False)
    stub.peers.child = None
    with pytest.raises(PeerLostError, match="was released"):
        memory_client.write(memory, dump, tmp_path / "vmcore", ignore)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ConflictError, match="is there already"):
        memory_client.check_target(tmp_path / "there")
    with pytest.raises(BadRequestError, match="is a folder"):
        memory_client.check_target(tmp_path)
    with pytest.raises(BadRequestError, match="there is no folder"):
        memory_client.check_target(tmp_path / "no" / "vmcore")
    (tmp_path / ".vmcore.partial").write_text("another's")
    memory = memory_of(Device())
    with pytest.raises(ConflictError, match="another dump is being written"):
        memory_client.write(
            memory, memory_client.plan(memory, without_free=False), tmp_path / "vmcore", ignore
        )
    assert (tmp_path / ".vmcore.partial").read_text() == "another's"


def test_an_agent_that_sends_what_nobody_asked_for() -> None:
    stub = Stub(Device())
    memory = RootMemory.of(stub, "new")
    stub.Read = lambda request, timeout: [memory_pb2.MemoryPiece(start=BASE + PAGE, data=b"x")]  # type: ignore[method-assign]
    with pytest.raises(MultirootError, match="nobody has asked for"):
        memory.read(BASE, 8)


def test_what_a_living_root_changes_is_seen() -> None:
    device = Device()
    memory = memory_of(device, Child(state="ready"))
    assert memory.alive
    assert memory.read(BASE + 0x2F0000, 4) == bytes(4)
    device.kernel.put_phys(BASE + 0x2F0000, b"news")
    memory._pages.clear()  # what a moment does
    assert memory.read(BASE + 0x2F0000, 4) == b"news"


@given(st.lists(st.sampled_from([0, 1, PAGE - 1, PAGE]), max_size=12), st.integers(0, PAGE - 1))
def test_runs_of_pages(ends: list[int], skew: int) -> None:
    """Every byte that is not zero is in a run, runs are in order, and no whole page of zeros is in one."""
    data = b"".join(bytes(PAGE - used) + b"\1" * used for used in ends)[skew:]
    rest = bytearray(data)
    last = 0
    for begin, end in not_zero(data, skew):
        assert last <= begin < end <= len(data)
        assert any(data[begin : begin + PAGE])
        rest[begin:end] = bytes(end - begin)
        last = end
    assert not any(rest)
    assert list(not_zero(bytes(PIECE))) == []
