# SPDX-License-Identifier: GPL-2.0-or-later
"""What the arena keeps of a VM: another root reads it, a write is whole or nothing, no bytes are believed."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from vm.conftest import SMALL

from multiroot.arena.arena import Arena
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import MIB
from multiroot.vm import home
from multiroot.vm.home import (
    SLOT_SIZE,
    SLOTS,
    VARIABLES_OFFSET,
    VARIABLES_SIZE,
    Home,
    Homes,
    pack,
    unpack,
    written,
)
from multiroot.vm.notices import Notice

HOME = Home(SMALL, "QEMU was killed", (Notice(5, "the guest rebooted"),))
LARGER = replace(HOME, definition=replace(SMALL, ram_bytes=64 * MIB))


@pytest.fixture
def arenas(arena_path: Path) -> Iterator[tuple[Arena, Arena]]:
    """The arena as two roots see it."""
    made = Arena(arena_path, 1), Arena(arena_path, 2)
    yield made
    for arena in made:
        arena.close()


def place_of(arena: Arena) -> int:
    """Where the home of SMALL begins in the arena's file."""
    return arena.find(f"{home.PREFIX}{SMALL.name}").extent.offset


def test_what_one_root_keeps_all_read_and_change_and_forget(arenas: tuple[Arena, Arena]) -> None:
    here, there = map(Homes, arenas)
    here.make(HOME)
    assert there.read("vm0") == HOME
    assert (there.names(), there.exists("vm0"), there.exists("vm1")) == (["vm0"], True, False)
    assert arenas[1].vms() == [], "it is no VM"
    for count in range(5):
        changed = replace(HOME, error=str(count))
        there.write(changed)
        assert here.read("vm0") == changed
    with pytest.raises(ConflictError, match="there is already a VM vm0"):
        there.make(HOME)
    there.remove("vm0")
    assert arenas[0].entries() == []
    for refused in (lambda: here.remove("vm0"), lambda: here.write(HOME), lambda: here.read_variables("vm0")):
        with pytest.raises(BadRequestError, match="no VM named 'vm0'"):
            refused()


def refuse() -> None:
    raise ConflictError("not now")


def test_what_must_not_be_changes_nothing(arenas: tuple[Arena, Arena]) -> None:
    homes = Homes(arenas[0])
    homes.make(HOME)
    with pytest.raises(ConflictError, match="not now"):
        homes.write(LARGER, refuse)
    with pytest.raises(ConflictError, match="not now"):
        homes.remove("vm0", refuse)
    assert homes.read("vm0") == HOME


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.99])
def test_a_write_that_is_cut_short_leaves_what_was_there(arenas: tuple[Arena, Arena], share: float) -> None:
    """The second write goes to the second place; of it only this much has come."""
    cut = int(len(pack(written(LARGER), 2, 1)) * share)
    arena, homes = arenas[0], Homes(arenas[0])
    homes.make(HOME)
    homes.write(LARGER)
    start = place_of(arena) + SLOTS[1]
    with arena.path.open("r+b") as file:
        file.seek(start)
        whole = file.read(SLOT_SIZE)
        file.seek(start)
        file.write(whole[:cut] + bytes(SLOT_SIZE - cut))
    assert homes.read("vm0") == HOME
    homes.write(LARGER)
    assert homes.read("vm0") == LARGER


def test_nothing_of_an_earlier_vm_of_the_name_is_seen(arenas: tuple[Arena, Arena]) -> None:
    arena, homes = arenas[0], Homes(arenas[0])
    homes.make(HOME)
    start = place_of(arena)
    kept = arena.path.read_bytes()[start : start + SLOT_SIZE]
    homes.remove("vm0")
    arena.allocate(f"{home.PREFIX}vm0", home.SIZE, 0)
    assert place_of(arena) == start
    with arena.path.open("r+b") as file:
        file.seek(start)
        file.write(kept)  # as if it were not zeroed yet
    assert homes.exists("vm0")
    assert homes.read("vm0") is None


def test_the_firmwares_variables_are_apart(arenas: tuple[Arena, Arena]) -> None:
    here, there = map(Homes, arenas)
    here.make(HOME)
    assert here.read_variables("vm0") == bytes(VARIABLES_SIZE)
    kept = bytes(range(256)) * (VARIABLES_SIZE // 256)
    here.write_variables("vm0", kept)
    here.write(LARGER)
    assert there.read_variables("vm0") == kept
    assert there.read("vm0") == LARGER
    assert there.variables_offset("vm0") == place_of(arenas[0]) + VARIABLES_OFFSET
    with pytest.raises(BadRequestError, match="do not fit"):
        here.write_variables("vm0", bytes(VARIABLES_SIZE + 1))


def test_a_home_has_room_for_the_largest_definition() -> None:
    """And for what is longer than that a definition has no room."""
    longest = replace(SMALL, user_data="#!".ljust(65536, '"'), append="é" * 4096)
    largest = Home(longest.checked(), "é" * 4096, (Notice(1, "é" * 256),) * 32)
    assert len(written(largest)) < SLOT_SIZE - 64
    assert unpack(pack(written(largest), 1, 1).ljust(SLOT_SIZE, b"\0"), "vm0", 1) == (1, largest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@st.composite
def damaged(draw: st.DrawFn) -> object:
    """A home with something else in one of its fields."""
    data = json.loads(written(HOME))
    place = draw(st.sampled_from([data, data["definition"], data["notices"][0]]))
    place[draw(st.sampled_from(sorted(place)))] = draw(JSON)
    return data


@settings(max_examples=300)
@given(JSON | damaged())
@example({"definition": {}, "error": "", "notices": []})
@example([])
def test_what_has_the_right_checksum_is_still_not_believed(data: object) -> None:
    """Either it is as good as what we write, or it is nothing."""
    whole = pack(json.dumps(data).encode(), 1, 7).ljust(SLOT_SIZE, b"\0")
    found = unpack(whole, "vm0", 7)
    assert found is None or unpack(pack(written(found[1]), 1, 7).ljust(SLOT_SIZE, b"\0"), "vm0", 7) == found


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, (1 << 32) - 1))
@example(b"[" * 200_000, 200_000)
@example(b"\xff\xfe", 2)
@example(b'{"a": ' + b"9" * 5000 + b"}", 5008)
def test_any_bytes_are_no_home(content: bytes, length: int) -> None:
    whole = pack(content, 1, 7)
    lying = whole[:12] + struct.pack("<I", length) + whole[16:]
    for data in (content, whole, lying):
        assert unpack(data.ljust(SLOT_SIZE, b"\0"), "vm0", 7) is None


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, SLOTS[1] + 600), st.integers(1, 255)), min_size=1, max_size=8))
def test_a_home_with_wrong_bits_is_as_it_was_or_unreadable(
    arena_path: Path, flips: list[tuple[int, int]]
) -> None:
    arena = Arena(arena_path, 1)
    homes = Homes(arena)
    try:
        if not homes.exists("vm0"):
            homes.make(HOME)
        homes.remove("vm0")
        homes.make(HOME)
        homes.write(LARGER)
        with arena.mapped(arena.find(f"{home.PREFIX}vm0").extent) as memory:
            for place, bits in flips:
                memory[place] ^= bits
        assert homes.read("vm0") in (None, HOME, LARGER)
        homes.write(LARGER)
        assert homes.read("vm0") == LARGER
    finally:
        arena.close()
