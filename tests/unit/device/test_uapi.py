# SPDX-License-Identifier: GPL-2.0-or-later
"""The border header means the same to C, C++ and Python."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from multiroot.device._uapi import ffi, lib

HEADERS = sorted((Path(__file__).parents[3] / "csrc/kmod/uapi").glob("*.h"))
STRUCTS = [name for name in ffi.list_types()[1] if name.startswith("multiroot_")]
IOCTLS = [name for name in dir(lib) if "IOC_" in name and not name.endswith("IOC_MAGIC")]
CONSTANTS = [name for name in dir(lib) if name.startswith("MULTIROOT_")]


def expected() -> dict[str, int]:
    """Sizes, offsets and constants as Python has them."""
    found = {name: getattr(lib, name) for name in CONSTANTS}
    for name in STRUCTS:
        struct = ffi.typeof(f"struct {name}")
        found[f"sizeof(struct {name})"] = ffi.sizeof(struct)
        found |= {f"offsetof(struct {name}, {field})": where.offset for field, where in struct.fields}
    return found


@pytest.mark.parametrize(("compiler", "suffix"), [("gcc", "c"), ("g++", "cpp")])
def test_layout_is_the_same(compiler: str, suffix: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    names = list(expected())
    lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({name}));' for name in names)
    source = tmp_path / f"layout.{suffix}"
    includes = "#include <stddef.h>\n#include <stdio.h>\n"
    includes += "".join(f'#include "{header}"\n' for header in HEADERS)
    source.write_text(f"{includes}int main(void)\n{{\n{lines}\nreturn 0;\n}}\n")
    program = tmp_path / "layout"
    subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Wpadded", "-Werror", source, "-o", program], check=True, timeout=60
    )
    output = subprocess.run([program], check=True, capture_output=True, text=True, timeout=60).stdout
    assert dict(zip(names, map(int, output.split()), strict=True)) == expected()


def test_every_ioctl_and_struct_is_known() -> None:
    text = "".join(header.read_text() for header in HEADERS)
    assert len(IOCTLS) == len(re.findall(r"#define MULTIROOT_(?:\w+_)?IOC_\w+\t", text))
    assert len(STRUCTS) == text.count("\nstruct multiroot_")
