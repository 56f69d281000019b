# SPDX-License-Identifier: GPL-2.0-or-later
"""The code in which CPUs wait between two roots, run on a bare machine without any kernel."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from kernel_code import KMOD, compiled

from multiroot.lab import lab, machine, recipes, roots
from multiroot.phases import Phases

BENCH = Path(__file__).parent / "guest/park_bench.c"
LEDGER, LEDGER_SIZE = 0x10000, 0x10000
START = 0x8000
PARK = LEDGER + 0x3000
# What the code needs of asm/msr-index.h, which is a kernel's own; and it refers to itself, as modules may.
MSR_INDEX = """#define MSR_EFER 0xc0000080
#define MSR_IA32_MCG_STATUS 0x17a
#define _EFER_LME 8
.hidden mr_trampoline_start
"""
CODE = ("park_code", "trampoline_code")
SOURCES = ("core/x86/park.c", "core/x86/trampoline.c")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The files of the module that lay out the pages, with their assembly code."""
    folder = tmp_path_factory.mktemp("layout")
    (folder / "asm").mkdir()
    (folder / "asm/msr-index.h").write_text(MSR_INDEX)
    objects = [str(folder / f"{name}.o") for name in CODE]
    for name, made in zip(CODE, objects, strict=True):
        words = ["-c", "-D__ASSEMBLY__", f"-I{KMOD}", "-idirafter", folder, KMOD / f"core/x86/{name}.S"]
        subprocess.run(["cc", *words, "-o", made], check=True)
    library = ctypes.CDLL(str(compiled(folder, "park.h", "park_glue.c", *SOURCES, *objects)))
    library.start_page.argtypes = [ctypes.c_void_p, *[ctypes.c_uint64] * 4]
    library.mr_park_build.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    return library


def program(folder: Path) -> tuple[Path, dict[str, int]]:
    """The bench, linked for where multiboot loads it, and where its symbols are."""
    binary = folder / "bench"
    places = {"park": PARK, "park_enter": PARK + 0x100, "slot": PARK + 0x5010, "slot_stack": PARK + 0x62C0}
    flags = "-m32 -ffreestanding -nostdlib -static -fno-pic -no-pie -O1 -fno-stack-protector -mno-sse -Wall"
    linker = "-Wl,--section-start=.multiboot=0x100000,-Ttext=0x101000,--build-id=none,-z,noexecstack"
    defined = [f"-Wl,--defsym={name}={value:#x}" for name, value in places.items()]
    headers = ["-D__ASSEMBLY__", f"-I{KMOD}"]
    subprocess.run(["cc", *flags.split(), *headers, linker, *defined, "-o", binary, BENCH], check=True)
    listing = subprocess.run(["nm", binary], capture_output=True, text=True, check=True).stdout
    return binary, {name: int(at, 16) for at, _, name in map(str.split, listing.splitlines())}


def test_hundreds_of_times_there_and_back_while_nmis_rain_down(layout: ctypes.CDLL, tmp_path: Path) -> None:
    """Proves that a startup IPI leads into the park, and 64-bit code, too; that no NMI on the way there
    finds a CPU without a gate or with too small a stack; that interrupts which were pending are taken; that
    it wakes up as often as it is woken."""
    binary, at = program(tmp_path)
    ledger = ctypes.create_string_buffer(LEDGER_SIZE)
    layout.mr_park_build(ledger, LEDGER)
    page = ctypes.create_string_buffer(4096)
    layout.start_page(page, START, at["bench_pml4"], at["bench_stack"] + 4096, at["bench_64"])
    for name, content in (("ledger", ledger), ("start", page)):
        (tmp_path / name).write_bytes(content.raw)

    cache = lab.cache(Phases("workstation"))
    tree = cache.ensure(roots.artifact("emulator", recipes.roots().emulator)) / roots.TREE
    words = "-machine q35 -cpu max -smp 2 -m 64 -display none -device isa-debug-exit,iobase=0xf4,iosize=1"
    modules = ["-kernel", binary, "-initrd", f"{tmp_path}/ledger,{tmp_path}/start"]
    said = subprocess.run(
        [*machine.emulator_argv(tree), *words.split(), *modules, "-debugcon", "stdio"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert said.stdout.splitlines()[-1:] == ["ok"], said.stdout + said.stderr
