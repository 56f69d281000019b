# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a kernel module stand on floors, and no file uses what a file to its right defines.

The floors are the table in csrc/kmod/README.md. The test reads which file defines which `mr_*` symbol.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KMOD = Path(__file__).parents[3] / "csrc/kmod"
README = (KMOD / "README.md").read_text()
MODULES = ("arena", "core", "iommu", "pci", "vfio")
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', re.DOTALL)
SYMBOL = re.compile(r"\b(?:mr|multiroot)_\w+")
# A definition begins in the first column and has a body, which a declaration has not.
FUNCTION = re.compile(
    r"^(?!static|typedef|extern)\w[\w \t*]*?\b((?:mr|multiroot)_\w+)\([^;{]*\)\s*\{", re.MULTILINE
)
VARIABLE = re.compile(
    r"^(?!static|typedef|extern|return)\w[\w \t*]*?\b(mr_\w+)(?:\[\])?(?:;| =)", re.MULTILINE
)
LABEL = re.compile(r"^\t\.globl\t?(.*)$", re.MULTILINE)


def floors(readme: str, module: str) -> list[list[str]]:
    """The floors of a module, lowest first, each with its files without their suffix."""
    found = re.search(rf"^    {module}:((?:.*\n)(?:     +\S.*\n)*)", readme, re.MULTILINE)
    assert found, f"csrc/kmod/README.md has no floors of {module}"
    return [floor.split() for floor in " ".join(found[1].split()).split("->")]


def code(path: Path) -> str:
    """A source file without comments, strings and includes."""
    return re.sub(r"^#include.*$", "", COMMENT_OR_STRING.sub(" ", path.read_text()), flags=re.MULTILINE)


def sources(folder: Path) -> dict[str, str]:
    """Code of each file by its name in the table; assembly belongs to the file that it is named after."""
    found: dict[str, str] = {}
    for path in sorted([*folder.rglob("*.c"), *folder.rglob("*.S")]):
        name = str(path.relative_to(folder).with_suffix("")).removesuffix("_code")
        found[name] = found.get(name, "") + code(path)
    return found


def definitions(text: str) -> set[str]:
    """Symbols that a file offers to others."""
    labels = {name for line in LABEL.findall(text) for name in SYMBOL.findall(line)}
    return set(FUNCTION.findall(text)) | set(VARIABLE.findall(text)) | labels


def uphill(files: dict[str, str], table: list[list[str]]) -> list[str]:
    """Each use of a symbol whose file does not stand on a lower floor."""
    floor = {name: number for number, names in enumerate(table) for name in names}
    owner = {symbol: name for name, text in files.items() for symbol in definitions(text)}
    return sorted(
        f"{name} uses {symbol} of {owner[symbol]}"
        for name, text in files.items()
        for symbol in set(SYMBOL.findall(text))
        if owner.get(symbol, name) != name and floor[owner[symbol]] >= floor[name]
    )


@pytest.mark.parametrize("module", MODULES)
def test_every_file_has_a_floor(module: str) -> None:
    assert sorted(name for floor in floors(README, module) for name in floor) == sorted(
        sources(KMOD / module)
    )


@pytest.mark.parametrize("module", MODULES)
def test_no_file_calls_to_its_right(module: str) -> None:
    assert uphill(sources(KMOD / module), floors(README, module)) == []


def test_modules_call_only_companions_below() -> None:
    files = {module: "".join(sources(KMOD / module).values()) for module in MODULES}
    assert uphill(files, [["arena", "core"], ["pci"], ["iommu"], ["vfio"]]) == []


@pytest.mark.parametrize("module", MODULES)
def test_every_declared_function_is_found(module: str) -> None:
    """A definition that the patterns above miss would hide who calls it."""
    declared = {
        name
        for header in (KMOD / module).rglob("*.h")
        for name in re.findall(
            r"^(?!static|typedef)[\w *]*?\b((?:mr|multiroot)_\w+)\(", code(header), re.MULTILINE
        )
    }
    defined = set().union(*(definitions(text) for text in sources(KMOD / module).values()))
    assert declared <= defined


def test_a_call_to_the_right_is_seen() -> None:
    files = {"low": "int mr_low(void)\n{\n\treturn mr_high();\n}\n", "high": "int mr_high(void)\n{\n}\n"}
    assert uphill(files, [["low"], ["high"]]) == ["low uses mr_high of high"]
    assert uphill(files, [["low", "high"]]) == ["low uses mr_high of high"]
    assert uphill(files, [["high"], ["low"]]) == []
