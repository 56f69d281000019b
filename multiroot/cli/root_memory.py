# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot root dump` and `root drgn`: the memory of a root that has crashed, that hangs, or that lives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.agent import connect
from multiroot.cli.commands import Command
from multiroot.cli.output import json_option, print_json, say, shown_phases
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.errors import BadRequestError, MultirootError
from multiroot.phase_names import PhaseName
from multiroot.units import MIB

if TYPE_CHECKING:
    from multiroot.root.memory_client import Dump, RootMemory


@contextmanager
def _memory(name: str) -> Iterator[RootMemory]:
    """The memory of the root called `name`, as long as the body runs."""
    from multiroot.root.memory_client import RootMemory
    from multiroot.rpc.v1 import memory_pb2_grpc

    with connect("old") as channel:
        yield RootMemory.of(memory_pb2_grpc.MemoryServiceStub(channel), name)


@click.command(cls=Command, example="multiroot root dump new --output vmcore")
@click.argument("name")
@click.option(
    "--output",
    "-o",
    type=OUTPUT_FILE,
    default=None,
    metavar="FILE",
    help="Where to write it. Default: vmcore-root-NUMBER.",
)
@click.option(
    "--with-free/--without-free",
    "with_free",
    default=False,
    help="Whether free pages are in it, too: what its kernel has used before. Default: without.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be written, and write nothing.")
@json_option
def dump(name: str, output: Path | None, with_free: bool, dry_run: bool, as_json: bool) -> None:
    """Write the memory of the root NAME to a vmcore, for drgn, crash or gdb.

    NAME is "new" or its number. The root may have crashed, hang, or live: it is not stopped, and nothing else
    is. Pages of zeros are holes of the file. Of a root that lives it is no picture of one moment.
    """
    from multiroot.root import memory_client

    with _memory(name) as memory, shown_phases() as phases:
        path = output or Path(f"vmcore-root-{memory.root}")
        memory_client.check_target(path)
        with phases.phase(PhaseName.LOOK_THROUGH_MEMORY, root=memory.root):
            planned = memory_client.plan(memory, without_free=not with_free and memory.info is not None)
        if dry_run:
            _print_dump(planned, path, -1, as_json)
            return
        with phases.phase(PhaseName.WRITE_DUMP) as attributes:
            written = memory_client.write(memory, planned, path, _shown_in(attributes))
    _print_dump(planned, path, written, as_json)


def _shown_in(attributes: dict[str, Any]) -> Any:
    def tell(done: int, total: int) -> None:
        attributes["read"] = f"{done // MIB}/{total // MIB} MiB"

    return tell


def _print_dump(made: Dump, path: Path, written: int, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "root": made.root,
                "state": made.state,
                "release": made.release,
                "path": str(path),
                "file_size": made.core.size,
                "memory": made.memory,
                "free": made.free if made.free >= 0 else None,
                "written": written if written >= 0 else None,
            }
        )
        return
    what = f"root {made.root} ({made.state}{', ' + made.release if made.release else ''})"
    free = f", {made.free // MIB} MiB of them free" if made.free >= 0 else ""
    if written < 0:
        say(f"{path} would have at most {(made.memory - max(made.free, 0)) // MIB} MiB of {what}")
        say(f"its memory is {made.memory // MIB} MiB{free}; pages of zeros take no room")
        return
    say(f"{path} has {written // MIB} MiB of {what}, whose memory is {made.memory // MIB} MiB{free}")
    if not made.release:
        say(
            "there is no VMCOREINFO in that memory: its kernel did not come so far, and drgn does not read it"
        )
    else:
        say(f"look into it: `multiroot root drgn --core {path}`")


@click.command(cls=Command, example="multiroot root backtrace new")
@click.argument("name")
@json_option
def backtrace(name: str, as_json: bool) -> None:
    """Print what the CPUs of the root NAME were doing when it ended, or are doing.

    NAME is "new" or its number. Needs no vmlinux: names come from the kernel's own table. What a line with
    "?" names was called, but may have returned. `multiroot root drgn` knows more, by debug information.
    """
    from multiroot.root.memory_client import need_info
    from multiroot.vmcore import traces
    from multiroot.vmcore.space import UnmappedError

    with _memory(name) as memory:
        info = need_info(memory)
        try:
            found = traces.of_all(memory.tables(), info, memory.parked)
        except UnmappedError as error:
            raise MultirootError(
                f"cannot read what the CPUs of root {memory.root} do: {error}",
                f"with its vmlinux it can be read: `multiroot root drgn {name}`",
            ) from error
    if as_json:
        print_json(
            [
                {
                    "cpu": each.cpu,
                    "parked": each.parked,
                    "pid": each.pid if each.pid >= 0 else None,
                    "comm": each.comm,
                    "error": each.error,
                    "places": [
                        {"address": place.address, "name": named, "sure": place.sure}
                        for place, named in each.places
                    ],
                }
                for each in found
            ]
        )
        return
    for line in traces.lines(found):
        say(line)


@click.command(cls=Command, example="multiroot root drgn new -e 'print(prog[\"jiffies\"])'")
@click.argument("name", required=False)
@click.argument("script", required=False, type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1)
@click.option("--core", type=click.Path(path_type=Path), metavar="FILE", help="A dump, in NAME's place.")
@click.option(
    "--vmlinux",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The kernel's vmlinux with debug information, or a folder: of its build, of its debug package.",
)
@click.option("-e", "expressions", multiple=True, metavar="CODE", help="Python to run in place of a prompt.")
def drgn(
    name: str | None,
    script: Path | None,
    arguments: tuple[str, ...],
    core: Path | None,
    vmlinux: Path | None,
    expressions: tuple[str, ...],
) -> int:
    """Open the root NAME in drgn: alive, hanging or crashed, as it is in memory.

    NAME is "new" or its number. Nothing is stopped. SCRIPT, or each CODE, is Python that has `prog` and
    drgn's helpers; without one there is a prompt. With --core all words are the script's.
    """
    from multiroot.workbench import debugger

    debugger.need_drgn()
    if core is not None:
        words = [word for word in (name, str(script) if script else "", *arguments) if word]
        return _debug_core(core, words, vmlinux, expressions)
    if not name:
        raise BadRequestError("which root?", "name it, or a dump of it: `multiroot root drgn new`")
    _check_script(script)
    with _memory(name) as memory:
        from multiroot.root.memory_client import need_info, registers

        info = need_info(memory)
        path = debugger.find_vmlinux(info, vmlinux)
        program = debugger.open_memory(info, memory.ranges, _fault(memory), alive=memory.alive)
        title = f"root {memory.root} ({memory.state}), {info.release}"
        return _debug(program, path, title, expressions, script, arguments, lambda: registers(memory))


def _fault(memory: RootMemory) -> Any:
    """Reads for drgn, which knows its own errors only."""
    import drgn as library

    from multiroot.vmcore.space import UnmappedError

    def read(address: int, size: int) -> bytes:
        try:
            return memory.read(address, size)
        except UnmappedError as error:
            raise library.FaultError(str(error), address) from error

    return read


def _debug_core(core: Path, words: list[str], vmlinux: Path | None, expressions: tuple[str, ...]) -> int:
    from multiroot.vmcore.core_file import all_notes, vmcoreinfo_in
    from multiroot.workbench import debugger

    script = Path(words[0]) if words else None
    _check_script(script)
    try:
        with core.open("rb") as file:
            head = file.read(MIB)
    except OSError as error:
        raise BadRequestError(f"cannot read {core}: {error.strerror}") from error
    info = vmcoreinfo_in(head)
    if info is None:
        raise BadRequestError(f"{core} has no VMCOREINFO", "`multiroot root dump NAME` makes one that has")
    path = debugger.find_vmlinux(info, vmlinux)
    program = debugger.open_core(core)
    return _debug(
        program, path, f"{core}, {info.release}", expressions, script, words[1:], lambda: all_notes(head)
    )


def _check_script(script: Path | None) -> None:
    if script is not None and not script.is_file():
        raise BadRequestError(f"there is no script {script}", "code by itself: -e CODE")


def _debug(
    program: Any,
    vmlinux: Path,
    title: str,
    expressions: tuple[str, ...],
    script: Path | None,
    arguments: Any,
    notes: Any,
) -> int:
    from multiroot.workbench import debugger

    missing = debugger.load_symbols(program, vmlinux)
    if missing:
        say(f"without all names: {missing}", err=True)
    if script is not None or expressions:
        return debugger.run(program, expressions, script, list(arguments), notes)
    debugger.interact(program, f"{title}, with {vmlinux}", notes)
    return 0
