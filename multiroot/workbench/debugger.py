# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens a kernel in drgn: a dump of it, or its memory while it lives or lies where it died.

drgn reads physical memory and VMCOREINFO, walks the page tables by itself, and has types and names from the
kernel's vmlinux. Which one that is, the build-id in VMCOREINFO says.
"""

from __future__ import annotations

import importlib
import logging
import mmap
import runpy
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multiroot import arch
from multiroot.errors import BadRequestError, MultirootError
from multiroot.lab import paths
from multiroot.ranges import Range
from multiroot.verdict import elf
from multiroot.vmcore import target
from multiroot.vmcore.core_file import Note
from multiroot.vmcore.info import VmcoreInfo

_DEBUG = ".debug_info"
FAILED = 1

ReadMemory = Callable[[int, int], bytes]
Notes = Callable[[], Sequence[Note]]  # asked when they are needed


def need_drgn() -> Any:
    """The module; raises MultirootError where it is not installed."""
    try:
        return importlib.import_module("drgn")
    except ImportError as error:
        raise MultirootError(
            f"drgn cannot be imported: {error}", f"`{sys.executable} -m pip install 'drgn>=0.3'`"
        ) from error


def find_vmlinux(info: VmcoreInfo, given: Path | None = None) -> Path:
    """The ELF file with debug information of the kernel that `info` tells of.

    `given` is a file, or a folder to look into: an O= folder, or that of an unpacked debug package. Raises
    BadRequestError that says which one is needed.
    """
    if given is not None:
        return _checked(given.expanduser(), info)
    for path in _usual(info):
        if path.is_file() and not _objection(path, info):
            return path
    raise BadRequestError(
        f"no vmlinux with debug information of {_named(info)} is found",
        "name it: --vmlinux FILE or the O= folder of its build; a Debian kernel's is in "
        f"linux-image-{info.release}-dbg, which `dpkg-deb -x` unpacks",
    )


def _checked(given: Path, info: VmcoreInfo) -> Path:
    places = list(_below(given, info)) if given.is_dir() else [given]
    there = [each for each in places if each.is_file()]
    if not there:
        what = "holds no vmlinux" if given.is_dir() else "is not there"
        raise BadRequestError(f"{given} {what}", f"needed is that of {_named(info)}")
    good = [each for each in there if not _objection(each, info)]
    if not good:
        raise BadRequestError(_objection(there[0], info), f"needed is the vmlinux of {_named(info)}")
    return good[0]


def _named(info: VmcoreInfo) -> str:
    return f"{info.release} (build-id {info.build_id})" if info.build_id else info.release


def _below(folder: Path, info: VmcoreInfo) -> Iterator[Path]:
    yield folder / "vmlinux"
    yield folder / f"vmlinux-{info.release}"
    for root in (folder, folder / "usr/lib/debug"):
        yield root / f"boot/vmlinux-{info.release}"
        yield root / f"lib/modules/{info.release}/vmlinux"
        if info.build_id:
            yield root / ".build-id" / info.build_id[:2] / f"{info.build_id[2:]}.debug"


def _usual(info: VmcoreInfo) -> Iterator[Path]:
    """Where distributions put them, and where `multiroot kernel build` has built."""
    yield from _below(Path("/usr/lib/debug"), info)
    yield Path(f"/boot/vmlinux-{info.release}")
    yield Path(f"/lib/modules/{info.release}/build/vmlinux")
    yield from sorted((paths.cache_dir() / "builds").glob("*/vmlinux"))


def _objection(path: Path, info: VmcoreInfo) -> str:
    """Why a file is not the one; "" if it is."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = {each.name for each in elf.sections(data)}
            build_id = elf.build_id(data)
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"
    if not names:
        return f"{path} is no vmlinux"
    if _DEBUG not in names:
        return f"{path} has no debug information"
    if info.build_id and build_id != info.build_id:
        return f"{path} is another kernel: its build-id is {build_id or 'not known'}"
    return ""


def open_core(core: Path) -> Any:
    """A drgn Program of a dump. Raises BadRequestError for what is none."""
    drgn = need_drgn()
    program = drgn.Program()
    try:
        program.set_core_dump(str(core))
    except (OSError, ValueError, LookupError) as error:
        raise BadRequestError(f"{core} cannot be opened: {error}") from error
    if not program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise BadRequestError(f"{core} is no dump of a kernel", "`multiroot root dump NAME` makes one")
    return program


def open_memory(info: VmcoreInfo, ranges: Iterable[Range], read: ReadMemory, *, alive: bool) -> Any:
    """A drgn Program of memory that `read` reads: `alive` if a kernel goes on in it."""
    drgn = need_drgn()
    program = drgn.Program(drgn.Platform(drgn.Architecture[arch.current().machine.upper()]))
    program.set_linux_kernel_custom(info.text, alive)
    for each in ranges:
        program.add_memory_segment(
            each.base, each.size, lambda address, size, _offset, _physical: read(address, size), physical=True
        )
    return program


def load_symbols(program: Any, vmlinux: Path, modules: Sequence[Path] = ()) -> str:
    """Give the program types and names; returns what is missing of its modules', "" if nothing is."""
    drgn = need_drgn()
    # It would list the modules one by one; they are told in a line below.
    logging.getLogger("drgn").setLevel(logging.ERROR)
    folder = vmlinux.parent
    program.debug_info_options.kernel_directories = (str(folder), "")
    try:
        program.load_debug_info([str(vmlinux), *map(str, modules)], default=True)
    except drgn.MissingDebugInfoError as error:
        if not program.main_module().debug_file_path:
            raise MultirootError(f"drgn does not take {vmlinux}: {str(error).splitlines()[0]}") from error
        return f"some modules have no debug information below {folder}"
    return ""


def cpu_traces(program: Any, notes: Iterable[Note]) -> list[Any]:
    """A trace, by debug information, of each CPU that was parked: `notes` have where each was. drgn itself
    looks for registers where only a kernel that starts a crash kernel has them.
    """
    drgn = need_drgn()
    known = [target.parse_registers(note) for note in notes]
    return [program.stack_trace(drgn.Object(program, "struct pt_regs", value=each)) for each in known if each]


@contextmanager
def _as_default(program: Any, notes: Notes) -> Iterator[dict[str, Any]]:
    """What a script sees; `prog` is the program, and drgn's own helpers are there, as in drgn's CLI."""
    drgn = need_drgn()
    cli = importlib.import_module("drgn.cli")
    drgn.set_default_prog(program)
    try:
        yield cli.default_globals(program) | {"cpu_traces": lambda: cpu_traces(program, notes())}
    finally:
        drgn.set_default_prog(None)


def run(
    program: Any,
    expressions: Sequence[str],
    script: Path | None,
    arguments: Sequence[str],
    notes: Notes = tuple,
) -> int:
    """Run the person's code; returns the exit code for it. A traceback of theirs is shown as Python does."""
    with _as_default(program, notes) as names:
        try:
            if script is not None:
                sys.argv = [str(script), *arguments]
                runpy.run_path(str(script), init_globals=names, run_name="__main__")
            for expression in expressions:
                exec(compile(expression, "<-e>", "exec"), names)
        except Exception:  # noqa: BLE001 - the code is the person's, and so is what it raises
            traceback.print_exc()
            return FAILED
    return 0


def interact(program: Any, banner: str, notes: Notes = tuple) -> None:
    """A prompt, as drgn has it."""
    cli = importlib.import_module("drgn.cli")
    own = {"cpu_traces": lambda: cpu_traces(program, notes())}
    cli.run_interactive(
        program,
        banner_func=lambda theirs: f"{banner}\n{theirs}\n>>> cpu_traces()  # of CPUs that were parked",
        globals_func=lambda theirs: theirs | own,
    )
