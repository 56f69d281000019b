# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of csrc/kmod/core, compiled for this program: a root with a carve, and a child that rings."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import pytest
from kernel_code import U64, at_places, compiled, loaded

EINVAL, EBUSY, ENOENT, EPERM = -22, -16, -2, -1
MEM_ONLINE, MEM_GOING_ONLINE, MEM_CANCEL_ONLINE, NOTIFY_OK = 1, 8, 16, 1
MIB = 1 << 20
ANSWERS_S = 10
SOURCES = ("dev", "segments", "console", "event", "doorbell", "memory", "x86/vector")


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    return compiled(folder, "core.h", "core_glue.c", *(f"core/{name}.c" for name in SOURCES))


@pytest.fixture
def core(module: Path, tmp_path: Path) -> ctypes.CDLL:
    """The module, loaded, with the claim."""
    library = loaded(module, tmp_path)
    assert library.up() == 0
    assert library.claim() == 0
    return library


class Page(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_bool) for name in ("online", "reserved", "poisoned", "unknown"))


def page(core: ctypes.CDLL, number: int) -> Page:
    core.page.restype = ctypes.POINTER(Page)
    found: Page = core.page(ctypes.c_ulong(number))[0]
    return found


def number(core: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(core, name).value


def others_are_answered(core: ctypes.CDLL, *calls: str) -> bool:
    """Whether each of these comes to its end while we are inside of another one."""
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: done.append(getattr(core, name)())) for name in calls
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
        thread.join(timeout=ANSWERS_S)
    return done == [0] * len(calls)


def test_what_is_written_is_read(core: ctypes.CDLL) -> None:
    """In pieces of 1 MiB, which a program does not see."""
    text = bytes(range(251)) * 10_000
    assert core.put(U64(2 * MIB + 8), text, U64(len(text))) == EINVAL, "nothing is carved"
    assert core.carve() == 0
    assert core.put(U64(2 * MIB + 8), text, U64(len(text))) == 0
    buffer = ctypes.create_string_buffer(len(text))
    assert core.get(U64(2 * MIB + 8), buffer, U64(len(text))) == 0
    assert buffer.raw == text
    for offset, size in ((0, 1), (MIB, MIB + 1), (63 * MIB, MIB + 1), (3 * MIB, 0)):
        assert core.get(U64(offset), buffer, U64(size)) == EINVAL


@pytest.mark.parametrize(("offset", "size", "pages"), [(0, 4096, 1), (4095, 2, 2), (8192 + 8, 3 * MIB, 769)])
def test_memory_that_is_offline_is_not_used_by_the_direct_map(
    core: ctypes.CDLL, offset: int, size: int, pages: int
) -> None:
    """KASAN has no shadow for it there, if it was added after boot; seen in a root that had taken over."""
    assert core.carve() == 0
    sent, back = (ctypes.create_string_buffer(size) for _ in range(2))
    sent.raw = bytes(range(251)) * (size // 251) + bytes(size % 251)
    offset += 4 * MIB  # behind what is shared
    assert core.put(U64(offset), sent, U64(size)) == 0
    assert core.get(U64(offset), back, U64(size)) == 0
    assert back.raw == sent.raw
    counts = {name: ctypes.c_int.in_dll(core, name).value for name in ("directly", "mapped", "unmapped")}
    pieces = 2 * -(-size // MIB)
    assert counts["directly"] == 0
    assert 2 * pages <= counts["mapped"] <= 2 * pages + pieces
    assert counts["unmapped"] == pieces


@pytest.mark.parametrize(("what", "place"), [("put", "copy_from_user"), ("get", "copy_to_user")])
def test_user_memory_that_does_not_answer_keeps_nobody_else_waiting(
    core: ctypes.CDLL, what: str, place: str
) -> None:
    """It may be a file system's in user space, which needs an answer itself before it gives one."""
    assert core.carve() == 0
    answered = []

    def inside(where: str) -> None:
        if where == place and threading.current_thread() is threading.main_thread():
            answered.append(others_are_answered(core, "info"))

    buffer = ctypes.create_string_buffer(2 * MIB)
    with at_places(core, inside):
        assert getattr(core, what)(U64(4 * MIB), buffer, U64(2 * MIB)) == 0
    assert len(answered) >= 2
    assert all(answered)


def test_a_carve_may_go_while_it_is_read(core: ctypes.CDLL) -> None:
    assert core.carve() == 0
    buffer = ctypes.create_string_buffer(2 * MIB)
    with at_places(core, lambda where: where == "copy_to_user" and others_are_answered(core, "uncarve")):
        assert core.get(U64(4 * MIB), buffer, U64(2 * MIB)) == EINVAL


def test_a_program_that_rings_all_the_time_keeps_nobody_else_waiting(core: ctypes.CDLL) -> None:
    """Each ring has a pause after it, so that the peer's CPU has some time of its own, and is alone."""
    assert core.ring(0x100) == ENOENT
    assert core.carve() == 0
    core.child_at(1, 0x41)
    answered = []

    def inside(where: str) -> None:
        if where == "fsleep":
            answered.append(others_are_answered(core, "info", "uncarve"))

    with at_places(core, inside):
        assert core.ring(0x100) == 0
    assert answered == [True]
    assert number(core, "interrupted") == 1


def test_a_reader_of_the_console_that_does_not_answer_does_not_keep_the_child(core: ctypes.CDLL) -> None:
    assert core.carve() == 0
    core.say(b"the child's last words")
    answered = []

    def inside(where: str) -> None:
        if where == "copy_to_user" and not answered:
            answered.append(others_are_answered(core, "uncarve"))

    text = ctypes.create_string_buffer(64)
    with at_places(core, inside):
        assert core.hear(text, ctypes.c_size_t(9)) == 9
    assert (text.value, answered) == (b"the child", [True])


def test_the_doorbell_may_be_a_thread(core: ctypes.CDLL) -> None:
    """A kernel of PREEMPT_RT makes it one, and it has to: whom it tells takes locks that sleep there."""
    no_thread = 0x10000
    assert not ctypes.c_ulong.in_dll(core, "irq_flags").value & no_thread


@pytest.mark.parametrize(
    ("hardware_id", "vectors", "rung"),
    [
        (
            1,
            [0, 2, 8, 14, 0x1F, 0x80, 0xEB, 0xEC, 0xF2, 0xF8, 0xFB, 0xFD, 0xFF, 0x100, 0x141, 1 << 31],
            False,
        ),
        (0, [0x41], False),  # ours
        (1, [0x20, 0x41, 0x7F, 0x81, 0xEA], True),
    ],
)
def test_only_vectors_of_devices_on_the_peers_own_cpus_are_rung(
    core: ctypes.CDLL, hardware_id: int, vectors: list[int], rung: bool
) -> None:
    """The peer writes both into memory. One of the kernel's own would stop a CPU."""
    assert core.carve() == 0
    heard = number(core, "interrupted")
    for vector in vectors:
        core.child_at(hardware_id, vector)
        assert core.ring(0x100) == 0
        heard += rung
        assert number(core, "interrupted") == heard
        assert not rung or number(core, "interrupted_vector") == vector


def test_uevents_of_a_peer_that_rings_without_end_are_few_and_the_last_one_comes(core: ctypes.CDLL) -> None:
    """Each ring finds another state. A second has 250 jiffies, and 20 ms are 5 of them."""
    assert core.carve() == 0
    now = ctypes.c_ulong.in_dll(core, "jiffies")
    begin = now.value
    for count in range(10_000):
        core.is_rung(count)
        if count % 40 == 0:
            core.let_time_pass(ctypes.c_ulong(now.value + 1))
    assert now.value == begin + 250
    assert 1 < number(core, "uevents") <= 51
    core.let_time_pass(ctypes.c_ulong(now.value + 6))
    assert number(core, "uevents") <= 52
    last = (ctypes.c_char * 64).in_dll(core, "last_uevent").value
    assert last == b"MULTIROOT_EVENT=state PEER=child STATE=9999"
    assert number(core, "queued") == 10_000


@pytest.mark.parametrize("end", [MEM_ONLINE, MEM_CANCEL_ONLINE])
def test_memory_that_was_let_through_on_its_way_online_is_not_carved(core: ctypes.CDLL, end: int) -> None:
    """Linux asks first, and has the pages online some time after that."""
    assert core.block(1, MEM_GOING_ONLINE) == NOTIFY_OK
    assert core.carve() == EBUSY
    assert core.block(1, end) == NOTIFY_OK
    assert core.carve() == 0


def test_memory_in_the_carve_stays_offline(core: ctypes.CDLL) -> None:
    assert core.carve() == 0
    assert core.block(2, MEM_GOING_ONLINE) == 0x8000 | NOTIFY_OK - EBUSY
    assert core.block(2, MEM_CANCEL_ONLINE) == NOTIFY_OK
    assert core.block(4, MEM_GOING_ONLINE) == NOTIFY_OK, "the next one behind it"
    assert core.uncarve() == 0
    assert core.block(2, MEM_GOING_ONLINE) == NOTIFY_OK


def test_memory_that_is_online_or_broken_is_not_carved(core: ctypes.CDLL) -> None:
    """A new root would run into the page that this kernel has set aside. What pages say that never were
    initialised (in a debug kernel: all ones) is not asked."""
    last = page(core, 64 * MIB // 4096 - 1)
    for name in ("online", "poisoned"):
        setattr(last, name, True)
        assert core.carve() == EBUSY, name
        setattr(last, name, False)
    last.unknown = last.poisoned = True
    assert core.carve() == 0
