# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of a user's: the arena keeps it as long as a VM needs it, and no bytes in it are believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kexec.x86.bzimage import BzImage
from vm.conftest import SMALL

from multiroot.arena.arena import Arena
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import GIB, MIB
from multiroot.vm import kept_files
from multiroot.vm.definition import VmDefinition
from multiroot.vm.host import Host
from multiroot.vm.kept_files import HASH, KeptFiles
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.manager import VmManager

KERNEL = BzImage(init_size=8 * MIB, pref_address=2 * MIB).build()
INITRD = b"070701" + bytes(5000)


def name_of(content: bytes) -> str:
    return f"{HASH}{hashlib.sha256(content).hexdigest()}"


OWN = replace(SMALL, kernel=name_of(KERNEL), initrd=name_of(INITRD))


def send(files: KeptFiles, content: bytes, piece: int = 4096) -> str:
    name = name_of(content)
    with files.receive(name, len(content)) as file:
        for start in range(0, len(content), piece):
            file.add(content[start : start + piece])
        file.finish()
    return name


def send_all(host: Host) -> None:
    for content in (KERNEL, INITRD):
        send(host.files, content)


def kept(arena: Arena) -> int:
    return sum(entry.name.startswith(kept_files.PREFIX) for entry in arena.entries())


@pytest.fixture
def arenas(arena_path: Path) -> Iterator[tuple[Arena, Arena]]:
    """The arena as two roots see it."""
    made = Arena(arena_path, 1), Arena(arena_path, 2)
    yield made
    for arena in made:
        arena.close()


@pytest.fixture
def life(manager: VmManager) -> Lifecycle:
    return Lifecycle(manager)


def test_what_one_root_keeps_all_read(arenas: tuple[Arena, Arena]) -> None:
    here, there = map(KeptFiles, arenas)
    name = send(here, INITRD)
    assert (there.has(name), there.read(name)) == (True, INITRD)
    assert arenas[1].vms() == [], "it is no VM"
    with pytest.raises(ConflictError, match="just being sent"):
        there.receive(name, len(INITRD))
    assert here.read(name) == INITRD


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=5000), st.integers(1, 5000))
def test_any_content_in_any_pieces_is_kept_as_it_is(arena_path: Path, content: bytes, piece: int) -> None:
    arena = Arena(arena_path, 1)
    try:
        files = KeptFiles(arena)
        name = send(files, content, piece)
        assert files.read(name) == content
        files.settle(replace(SMALL, kernel=name))
        files.sweep(set)
        assert arena.entries() == []
    finally:
        arena.close()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4096 + 300), st.integers(1, 255)), min_size=1, max_size=4))
def test_a_file_with_wrong_bits_is_as_it_was_or_refused(
    arena_path: Path, flips: list[tuple[int, int]]
) -> None:
    content = bytes(range(256))
    arena = Arena(arena_path, 1)
    try:
        files = KeptFiles(arena)
        name = send(files, content)
        (entry,) = arena.entries()
        with arena.mapped(entry.extent) as memory:
            for place, bits in flips:
                memory[place] ^= bits
        try:
            assert files.read(name) == content
        except BadRequestError as error:
            assert "does not have the file" in error.message or "is damaged" in error.message  # noqa: PT017
        files.settle(replace(SMALL, kernel=name))
        files.sweep(set)
        assert arena.entries() == []
    finally:
        arena.close()


@pytest.mark.parametrize(
    ("name", "size", "data", "says"),
    [
        ("sha256:12", 1, b"a", "not the checksum of a file"),
        (name_of(b"abc"), 0, b"", "the file is empty"),
        (name_of(b"abc"), GIB + 1, b"", "1 byte to 1 GiB are kept"),
        (name_of(b"abc"), 3, b"abcd", "more came than the 3 bytes"),
        (name_of(b"abc"), 3, b"ab", "not the file that was announced"),
        (name_of(b"abc"), 3, b"abd", "not the file that was announced"),
    ],
)
def test_what_is_not_as_announced_leaves_nothing(
    arenas: tuple[Arena, Arena], name: str, size: int, data: bytes, says: str
) -> None:
    def receive() -> None:
        with KeptFiles(arenas[0]).receive(name, size) as file:
            file.add(data)
            file.finish()

    with pytest.raises(BadRequestError, match=says):
        receive()
    assert arenas[0].entries() == []


def test_more_than_the_arena_has_room_for_is_refused(arenas: tuple[Arena, Arena]) -> None:
    with pytest.raises(ConflictError, match="cannot keep the file"):
        KeptFiles(arenas[0]).receive(name_of(b"abc"), 200 * MIB)
    assert arenas[0].entries() == []


def test_what_an_agent_left_when_it_died_gives_way(arena_path: Path, arenas: tuple[Arena, Arena]) -> None:
    died, there = map(KeptFiles, arenas)
    died.receive(name_of(INITRD), len(INITRD)).add(INITRD[:10])
    # It may be at work on it still.
    there.sweep(set)
    with pytest.raises(ConflictError, match="just being sent"):
        there.receive(name_of(INITRD), len(INITRD))
    assert kept(arenas[0]) == 1
    again = KeptFiles(arenas[0])
    assert not again.has(name_of(INITRD))
    assert again.read(send(again, INITRD)) == INITRD


def test_what_nobody_needs_is_swept_unless_it_was_just_sent(arenas: tuple[Arena, Arena]) -> None:
    here, there = map(KeptFiles, arenas)
    one, other = send(here, b"one"), send(here, b"other")
    here.sweep(set)
    assert kept(arenas[0]) == 2
    there.sweep(lambda: None)
    assert kept(arenas[0]) == 2, "nobody knows who needs them"
    there.sweep(lambda: {one})
    assert (there.has(one), there.has(other)) == (True, False)
    there.sweep(set)
    assert arenas[0].entries() == []


async def test_the_life_of_a_file(host: Host, manager: VmManager, life: Lifecycle) -> None:
    send_all(host)
    await life.define(OWN)
    await life.define(replace(OWN, name="vm1", cards=()))
    vm = await life.start("vm0")
    command = Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_bytes().split(b"\0") if vm.vmm.process else []
    assert Path(command[command.index(b"-kernel") + 1].decode()).read_bytes() == KERNEL
    assert Path(command[command.index(b"-initrd") + 1].decode()).read_bytes() == INITRD
    assert command[command.index(b"-append") + 1] == b"console=ttyS0"
    await life.remove("vm0", force=True)
    assert kept(host.arena) == 2, "vm1 needs them, too"
    await life.edit(replace(OWN, name="vm1", cards=(), initrd=""))
    assert kept(host.arena) == 1
    vm = await life.start("vm1")
    await life.reboot("vm1")
    await life.stop("vm1", force=True)
    assert kept(host.arena) == 1
    await life.edit(replace(SMALL, name="vm1", cards=()))
    assert kept(host.arena) == 0
    await life.remove("vm1")
    assert host.arena.entries() == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no kernel", "this is no kernel that a VM starts"),
        (BzImage(init_size=64 * MIB).build(), "the kernel does not come up in 32 MiB"),
    ],
)
async def test_what_does_not_start_is_refused_and_goes(
    host: Host, life: Lifecycle, content: bytes, says: str
) -> None:
    for ask in (life.define, life.run):
        with pytest.raises(BadRequestError, match=says):
            await ask(replace(SMALL, kernel=send(host.files, content)))
        assert host.arena.entries() == []
    await life.define(SMALL)
    with pytest.raises(BadRequestError, match=says):
        await life.edit(replace(SMALL, kernel=send(host.files, content)))
    assert life._homes.read("vm0")
    assert kept(host.arena) == 0
    await life.remove("vm0")


@pytest.mark.parametrize("kernel", [name_of(KERNEL), "/boot/vmlinuz", "sha256:"])
async def test_a_file_that_never_came_is_asked_for(host: Host, life: Lifecycle, kernel: str) -> None:
    with pytest.raises(BadRequestError, match="does not have the file") as refused:
        await life.define(replace(SMALL, kernel=kernel))
    assert "--kernel FILE" in refused.value.hint
    assert host.arena.entries() == []


async def test_a_file_that_was_damaged_keeps_its_vm_from_starting(
    host: Host, manager: VmManager, life: Lifecycle
) -> None:
    send_all(host)
    await life.define(OWN)
    for entry in host.arena.entries():
        if entry.name.startswith(kept_files.PREFIX):
            with host.arena.mapped(entry.extent) as memory:
                memory[4096 + 4000] ^= 1
    with pytest.raises(BadRequestError, match="is damaged"):
        await life.start("vm0")
    assert (manager.all(), host.arena.vms()) == ([], [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"initrd": name_of(INITRD)}, "an initrd is given without its kernel"),
        ({"kernel": "a\nb"}, "the guest's kernel holds characters"),
        ({"kernel": "a" * 4097}, "longer than 4096"),
    ],
)
def test_what_no_definition_can_say(change: dict[str, str], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        replace(VmDefinition("vm0"), **change).checked()
