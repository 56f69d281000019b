# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of csrc/kmod, compiled for this program together with a little of a kernel (`kernel/shim`)."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent / "kernel"
SHIM = HERE / "shim"
KMOD = Path(__file__).parents[3] / "csrc/kmod"
INCLUDE = re.compile(r"^#include <((?:linux|asm)/\S+)>", re.MULTILINE)
# What the kernel's C leaves undefined ends the program by SIGILL. Signed numbers wrap there, and words may
# lie anywhere.
UNDEFINED = ["-fwrapv", "-fsanitize=undefined", "-fno-sanitize=alignment"]
UNDEFINED += ["-fsanitize-undefined-trap-on-error"]
HOOK = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
U64 = ctypes.c_uint64


def _empty_headers(folder: Path) -> Path:
    """A header of each name that the modules include, to be found where neither shim nor host have it."""
    for source in [*KMOD.rglob("*.[ch]")]:
        for name in INCLUDE.findall(source.read_text()):
            header = folder / name
            header.parent.mkdir(parents=True, exist_ok=True)
            header.touch()
    return folder


def compiled(folder: Path, shim: str, glue: str, *sources: str) -> Path:
    """A library of these files of csrc/kmod and of `glue`, all with the declarations of `shim`."""
    library = folder / f"{Path(glue).stem}.so"
    includes = ["-include", SHIM / shim, f"-I{SHIM}", f"-I{KMOD}", "-idirafter", _empty_headers(folder)]
    flags = ["-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function"]
    flags += UNDEFINED
    files = [SHIM / "kernel.c", HERE / glue, *(KMOD / source for source in sources)]
    subprocess.run(["cc", *flags, *includes, "-o", library, *files, "-lpthread"], check=True)
    return library


def loaded(library: Path, folder: Path) -> ctypes.CDLL:
    """A library, with static variables of its own: what is loaded twice from one file has them once."""
    copy = folder / library.name
    copy.write_bytes(library.read_bytes())
    return ctypes.CDLL(str(copy))


@contextmanager
def at_places(library: ctypes.CDLL, hook: Callable[[str], None]) -> Iterator[None]:
    """Have `hook` called at the places of the shim that say their name, in whichever thread comes by."""
    pointer = ctypes.c_void_p.in_dll(library, "shim_hook")
    function = HOOK(lambda name: hook(name.decode()))
    pointer.value = ctypes.cast(function, ctypes.c_void_p).value
    try:
        yield
    finally:
        pointer.value = None
