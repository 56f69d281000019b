# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers that place things in a guest's address spaces: read from one QEMU, given to another."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import CommandError
from multiroot.vm.qemu.memory_map import (
    ECAM,
    FUNCTIONS,
    NOTHING,
    MemoryMap,
    Register,
    give,
    known,
    lines,
    pack,
    parse_dump,
    unpack,
)
from multiroot.vm.qemu.monitor import Monitor

HOST, LPC, CARD, *_ = FUNCTIONS["q35"]


def space(identity: int, **words: int) -> bytes:
    """256 bytes; a keyword like `at_60` sets the dword there."""
    data = bytearray(256)
    data[:4] = identity.to_bytes(4, "little")
    for name, value in words.items():
        offset = int(name.removeprefix("at_"), 16)
        data[offset : offset + 4] = value.to_bytes(4, "little")
    return bytes(data)


HOST_SPACE = space(HOST.identity, at_60=ECAM | 1, at_90=0x33333310, at_94=0x333333)


def test_registers_of_functions_that_are_there_are_known() -> None:
    spaces = {
        HOST: HOST_SPACE,
        LPC: space(LPC.identity, at_40=0x601, at_44=0x80),
        CARD: space(CARD.identity, at_04=0x0010_0107, at_10=0x1001, at_14=0x8000000),
    }
    found = known(spaces)
    assert found[Register(0x00, 0x90)] == 0x33333310
    assert found[Register(0xF8, 0x40)] == 0x601
    assert found[Register(0xF8, 0x44, 1)] == 0x80
    assert found[Register(0x08, 0x10)] == 0x1001
    assert found[Register(0x08, 0x04, 1)] == 0x07  # nothing of the status register


def test_a_vm_without_card_has_none() -> None:
    found = known({HOST: HOST_SPACE, LPC: b"", CARD: b"\xff" * 256})
    assert {register.function for register in found} == {HOST.number}


@pytest.mark.parametrize(
    "host",
    [
        b"",
        HOST_SPACE[:16],
        b"\xff" * 256,
        space(HOST.identity, at_60=ECAM),  # not enabled
        space(HOST.identity, at_60=0xE000_0001),
        space(0x1237_8086, at_60=ECAM | 1),
    ],
)
def test_what_does_not_look_like_ecam_is_nothing(host: bytes) -> None:
    assert known({HOST: host, CARD: space(CARD.identity, at_04=7)}) == {}


def test_dump() -> None:
    text = "00000000b0000000: 0x29c08086 0x00100103\r\n00000000b0000008: 0x06000000\r\n"
    assert parse_dump(text).hex() == "8680c02903011000" + "00000006"
    assert parse_dump("Cannot access memory\r\n") == b""
    assert parse_dump("") == b""


@given(st.binary(min_size=4, max_size=160).map(lambda data: data[: len(data) & ~3]))
def test_a_dump_tells_what_was_dumped(data: bytes) -> None:
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    text = ""
    for row, part in enumerate(rows):
        words = [int.from_bytes(part[at : at + 4], "little") for at in range(0, len(part), 4)]
        text += f"{row * 16:016x}: " + " ".join(f"{word:#010x}" for word in words) + "\r\n"
    assert parse_dump(text) == data


def test_bars_are_enabled_last_and_zeros_left_out() -> None:
    registers = {
        Register(0x08, 0x04, 1): 7,
        Register(0x08, 0x10): 0x1001,
        Register(0x08, 0x18): 0,
        Register(0xF8, 0x44, 1): 0x80,
    }
    assert lines("q35,hpet=on", MemoryMap(registers, modern_hotplug=True)) == [
        "o /b 0xcd8 0",
        "o /w 0xcf8 0x8000f844",
        "o /b 0xcfc 0x80",
        "o /w 0xcf8 0x80000810",
        "o /w 0xcfc 0x1001",
        "o /w 0xcf8 0x80000804",
        "o /b 0xcfc 0x7",
    ]


def test_other_registers_and_machines_are_left_alone() -> None:
    others = {Register(0xF8, 0xF0): 0xFED1_C001, Register(0x48, 0x10): 1, Register(0x08, 0x04, 4): 7}
    assert lines("q35", MemoryMap(others)) == []
    assert lines("microvm", MemoryMap({Register(0x08, 0x10): 0x1001}, modern_hotplug=True)) == []
    assert lines("q35", NOTHING) == []


def test_it_travels_as_hints() -> None:
    memory_map = MemoryMap({Register(0xF8, 0x44, 1): 0x80, Register(0x08, 0x10): 0x1001}, modern_hotplug=True)
    assert unpack(pack(memory_map)) == memory_map
    assert pack(NOTHING) == b""
    assert unpack(b"") == NOTHING


@pytest.mark.parametrize("hints", [b"\xff", b"[]", b"{}", b'{"registers": [[1]], "modern_hotplug": true}'])
def test_hints_that_are_none(hints: bytes) -> None:
    with pytest.raises(CommandError, match="no memory map"):
        unpack(hints)


def test_what_qemu_says_to_a_write_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    monitor = Monitor(ours)
    asked: list[dict[str, object]] = []

    def answer() -> None:
        for said in ("", "invalid\r\n"):
            asked.append(json.loads(theirs.recv(1000)))
            theirs.sendall(json.dumps({"return": said}).encode() + b"\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(CommandError, match=r"QEMU refused 'o /b 0xcfc 0x80': invalid"):
        give(monitor, "q35", MemoryMap({Register(0xF8, 0x44, 1): 0x80}))
    thread.join()
    monitor.close()
    theirs.close()
    assert asked[0] == {
        "execute": "human-monitor-command",
        "arguments": {"command-line": "o /w 0xcf8 0x8000f844"},
    }
