# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of source for the places that kernels name ("func+0x12/0x34 [module]"), by the build's own files.

Kernels print where in a function they were, so it does not matter where KASLR or a carve has put them. A
function whose size is another is another build's, and gets no line rather than a wrong one, as
scripts/faddr2line does it.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from multiroot import proc
from multiroot.errors import CommandError
from multiroot.verdict import elf
from multiroot.verdict.elf import Function, Section
from multiroot.verdict.findings import Finding, Source

_PLACE = re.compile(
    r"(?P<name>[\w.]+)\+(?P<offset>0x[0-9a-f]+)/(?P<size>0x[0-9a-f]+)(?: \[(?P<module>\w+)\])?"
)
_TIMEOUT = 120.0  # seconds: the debug information of a whole kernel takes a while to read
_MOST = 32  # places of one finding


@dataclass(frozen=True)
class Place:
    """A place as a kernel prints it; `module` is "" for the kernel itself."""

    name: str
    offset: int
    size: int
    module: str = ""


def place(text: str) -> Place | None:
    """The place in `text`; None if there is none."""
    match = _PLACE.search(text)
    if not match:
        return None
    return Place(match["name"], int(match["offset"], 16), int(match["size"], 16), match["module"] or "")


@dataclass
class Symbols:
    """The files of one build: `vmlinux`, and `modules` by their names with "_". What is missing gives no
    lines.
    """

    vmlinux: Path | None
    modules: Mapping[str, Path] = field(default_factory=dict)
    _known: dict[Path, tuple[dict[str, list[Function]], list[Section]]] = field(
        default_factory=dict, init=False
    )

    def lines(self, texts: Iterable[str]) -> dict[str, str]:
        """By place, the lines of source that were compiled into it, innermost first: "a.c:1 (inlined by)
        b.c:2".
        """
        asked: dict[tuple[Path, str], dict[int, str]] = {}
        for text in texts:
            found = self._address(text)
            if found:
                path, section, address = found
                asked.setdefault((path, section), {})[address] = text
        told: dict[str, str] = {}
        for (path, section), addresses in asked.items():
            for address, line in _ask(path, section, list(addresses)).items():
                told[addresses[address]] = line
        return told

    def _address(self, text: str) -> tuple[Path, str, int] | None:
        """File, section ("" where addresses count from 0) and address of a place."""
        wanted = place(text)
        if not wanted:
            return None
        path = self.modules.get(wanted.module) if wanted.module else self.vmlinux
        if not path:
            return None
        functions, sections = self._read(path)
        same = [each for each in functions.get(wanted.name, []) if _fits(each, wanted)]
        if len(same) != 1:
            return None
        linked = not wanted.module
        section = "" if linked else sections[same[0].section].name
        return path, section, same[0].address + wanted.offset

    def _read(self, path: Path) -> tuple[dict[str, list[Function]], list[Section]]:
        if path not in self._known:
            by_name: dict[str, list[Function]] = {}
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for function in elf.functions(data):
                    by_name.setdefault(function.name, []).append(function)
                self._known[path] = by_name, elf.sections(data)
        return self._known[path]


def _fits(function: Function, wanted: Place) -> bool:
    """Kernels count a function up to the next one: its padding, of up to 63 bytes, is a part of it."""
    return function.size <= wanted.size < function.size + 64 and wanted.offset < wanted.size


def _ask(path: Path, section: str, addresses: list[int]) -> dict[int, str]:
    """What addr2line says of addresses in a file; nothing where it knows no line."""
    # LLVM's is faster, but knows no sections.
    program = (not section and proc.find("llvm-addr2line")) or proc.find("addr2line")
    if not program:
        return {}
    where = [f"--section={section}"] if section else []
    argv = [str(program), "--exe", str(path), "--addresses", "--inlines", *where, *map(hex, addresses)]
    try:
        said = proc.run(argv, timeout=_TIMEOUT).stdout
    except CommandError:
        return {}
    found: dict[int, str] = {}
    for block in re.split(r"^(?=0x)", said, flags=re.MULTILINE):
        first, *lines = block.split("\n") if block.startswith("0x") else [""]
        known = [line.strip() for line in lines if line.strip() and not line.startswith("?")]
        if first and known:
            found[int(first, 16)] = " (inlined by) ".join(known)
    return found


def symbolised(findings: Iterable[Finding], symbols: Callable[[Source], Symbols | None]) -> list[Finding]:
    """The findings with lines of source; `symbols` knows the files of the kernel that spoke."""
    done = []
    for finding in findings:
        known = symbols(finding.source)
        places = list(dict.fromkeys(each for each in (finding.code, *finding.frames) if each))[:_MOST]
        lines = known.lines(places) if known and places else {}
        told = tuple(f"{each}: {lines[each]}" for each in places if each in lines)
        done.append(replace(finding, lines=told) if told else finding)
    return done
