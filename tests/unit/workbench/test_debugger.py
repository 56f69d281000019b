# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmlinux is the one of the kernel that is looked at, and drgn reads what is in memory and in a dump."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from root.carve_fakes import Device
from vmcore.small_kernel import BASE, CODE, LINEAR, RELEASE, SmallKernel

from multiroot.errors import BadRequestError
from multiroot.ranges import Range
from multiroot.vmcore import info as vmcoreinfo
from multiroot.vmcore.core_file import CoreFile, vmcoreinfo_note
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.target import elf_machine
from multiroot.workbench import debugger

INFO = vmcoreinfo.parse(SmallKernel().text)
assert INFO


def elf_file(path: Path, *, build_id: str = INFO.build_id, debug: bool = True) -> Path:
    """An ELF file with a build-id and, if wanted, a section of debug information."""
    note = struct.pack("<III", 4, len(build_id) // 2, 3) + b"GNU\0" + bytes.fromhex(build_id)
    names = b"\0.shstrtab\0.note.gnu.build-id\0.debug_info\0"
    head = 64
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 3, 0, 0, head, len(names), 0, 0, 1, 0),
        (11, 7, 0, 0, head + len(names), len(note), 0, 0, 4, 0),
        *([(30, 1, 0, 0, head, 4, 0, 0, 1, 0)] if debug else []),
    ]
    at = head + len(names) + len(note)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, elf_machine(), 1, 0, 0, at, 0, 64, 0, 0, 64, len(sections), 1,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + names + note + b"".join(struct.pack("<IIQQQQIIQQ", *each) for each in sections))
    return path


def known() -> VmcoreInfo:
    assert INFO
    return INFO


@pytest.mark.parametrize(
    "place",
    [
        "vmlinux",
        f"usr/lib/debug/boot/vmlinux-{RELEASE}",
        f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux",
        ".build-id/00/112233445566778899aabbccddeeff00112233.debug",
    ],
)
def test_in_a_folder(tmp_path: Path, place: str) -> None:
    there = elf_file(tmp_path / place)
    assert debugger.find_vmlinux(known(), tmp_path) == there
    assert debugger.find_vmlinux(known(), there) == there


def test_another_kernels(tmp_path: Path) -> None:
    other = elf_file(tmp_path / "vmlinux", build_id="ff" * 20)
    with pytest.raises(BadRequestError, match=f"another kernel: its build-id is {'ff' * 20}") as refused:
        debugger.find_vmlinux(known(), other)
    assert known().build_id in refused.value.hint


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: elf_file(path, debug=False), "has no debug information"),
        (lambda path: path.write_bytes(b"MZ" + bytes(100)), "is no vmlinux"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: None, "is not there"),
    ],
)
def test_what_is_none(tmp_path: Path, make: object, why: str) -> None:
    make(tmp_path / "vmlinux")  # type: ignore[operator]
    with pytest.raises(BadRequestError, match=why):
        debugger.find_vmlinux(known(), tmp_path / "vmlinux")


def test_none_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BadRequestError, match=f"no vmlinux with debug information of {RELEASE}") as refused:
        debugger.find_vmlinux(known())
    assert f"linux-image-{RELEASE}-dbg" in refused.value.hint
    built = elf_file(tmp_path / "multiroot/builds/mine/vmlinux")
    assert debugger.find_vmlinux(known()) == built


def test_drgn_reads_a_roots_memory() -> None:
    pytest.importorskip("drgn", reason="drgn is not installed: the extra `debug`")
    device = Device()
    program = debugger.open_memory(known(), device.kernel.ranges, device.read_memory, alive=True)
    assert RELEASE.encode() in program.read(CODE + 0x2000, 256)
    device.kernel.put_phys(BASE + 0x300000, b"words")
    assert program.read(LINEAR + BASE + 0x300000, 5) == b"words"
    assert program.read(BASE + 0x300000, 5, True) == b"words"


def test_drgn_reads_a_dump(tmp_path: Path) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed: the extra `debug`")
    kernel = SmallKernel()
    memory = Range(BASE, len(kernel.memory))
    core = CoreFile(elf_machine(), (memory,), (vmcoreinfo_note(kernel.text),), LINEAR)
    path = tmp_path / "vmcore"
    path.write_bytes(core.header().ljust(core.offset_of(BASE, 1), b"\0") + kernel.memory)
    program = debugger.open_core(path)
    assert RELEASE.encode() in program.read(CODE + 0x2000, 256)
    assert program.read(LINEAR + BASE + 0x3000, 9) == b"OSRELEASE"
    assert debugger.run(program, ["print(hex(prog.read_u64(0x1000)))"], None, []) == debugger.FAILED


def test_what_is_no_dump(tmp_path: Path) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed: the extra `debug`")
    (tmp_path / "text").write_text("text")
    core = CoreFile(elf_machine(), (Range(0, 4096),))
    (tmp_path / "core").write_bytes(core.header().ljust(core.size, b"\0"))
    for name in ("text", "core", "none"):
        with pytest.raises(BadRequestError):
            debugger.open_core(tmp_path / name)
