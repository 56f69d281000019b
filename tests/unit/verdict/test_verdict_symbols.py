# SPDX-License-Identifier: GPL-2.0-or-later
"""Places become lines of source by the files of the build that printed them, and by no other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.verdict import elf
from multiroot.verdict.findings import Source, find
from multiroot.verdict.symbols import Place, Symbols, place, symbolised

SOURCE = """\
static int twice(int n)
{
	return n * 2 + n / 3;
}

int frob(int n)
{
	return twice(n) - 7;
}

void _start(void)
{
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "vmlinux", linked, and "frob.ko", which is not."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "frob.c").write_text(SOURCE)
    common = ["gcc", "-g", "-O2", "-fno-pie", "-fcf-protection=none", "-ffunction-sections", "frob.c"]
    subprocess.run(
        [*common, "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=sha1", "-o", "vmlinux"],
        cwd=folder,
        check=True,
    )
    subprocess.run([*common, "-c", "-o", "frob.ko"], cwd=folder, check=True)
    return folder


def size_of(path: Path) -> int:
    return next(each.size for each in elf.functions(path.read_bytes()) if each.name == "frob")


def test_a_line_of_the_kernel(built: Path) -> None:
    where = f"frob+0x0/{size_of(built / 'vmlinux'):#x}"
    (line,) = Symbols(built / "vmlinux").lines([where]).values()
    assert "frob.c:7" in line or "frob.c:8" in line or "frob.c:3" in line


def test_a_line_of_a_module(built: Path) -> None:
    where = f"frob+0x0/{size_of(built / 'frob.ko'):#x} [frob]"
    symbols = Symbols(None, {"frob": built / "frob.ko"})
    assert "frob.c" in symbols.lines([where])[where]
    assert symbols.lines([where.replace("[frob]", "[other]")]) == {}


def test_another_builds_function_gets_no_line(built: Path) -> None:
    symbols = Symbols(built / "vmlinux")
    assert (
        symbols.lines([f"frob+0x0/{size_of(built / 'vmlinux') + 64:#x}", "nowhere+0x1/0x2", "no place"]) == {}
    )


def test_a_finding_gets_lines_of_its_own_kernel(built: Path) -> None:
    where = f"frob+0x0/{size_of(built / 'vmlinux'):#x}"
    found = find([f"[ 1.000000] WARNING: CPU: 0 PID: 1 at frob.c:8 {where}"], "old", "6.12.1")
    symbols = Symbols(built / "vmlinux")
    assert symbolised(found, {Source("old", "6.1.0"): symbols}.get)[0].lines == ()
    (told,) = symbolised(found, {Source("old", "6.12.1"): symbols}.get)[0].lines
    assert told.startswith(f"{where}: ")
    assert "frob.c" in told


def test_the_build_id(built: Path) -> None:
    said = subprocess.run(
        ["readelf", "-n", built / "vmlinux"], capture_output=True, text=True, check=True
    ).stdout
    found = elf.build_id((built / "vmlinux").read_bytes())
    assert len(found) == 40
    assert found in said
    assert elf.build_id((built / "frob.ko").read_bytes()) == ""


def test_places() -> None:
    assert place("RIP: 0010:frob.part.0+0x1a/0x90 [a_b]") == Place("frob.part.0", 0x1A, 0x90, "a_b")
    assert place("frob+1/2") is None


@given(st.binary(max_size=300), st.binary(max_size=64))
def test_any_file_can_be_looked_at(data: bytes, head: bytes) -> None:
    for each in (data, elf.MAGIC + b"\x02\x01" + head + data):
        elf.build_id(each)
        list(elf.functions(each))
        elf.build_id_in_notes(each)
