# SPDX-License-Identifier: GPL-2.0-or-later
"""The methods of dataclasses, compiled ahead, as modules are.

`@dataclass` writes the text of a class's methods and compiles it, whenever the module is imported. That is a
quarter of an agent's imports. `dataclasses` calls the builtin `exec` with that text (CPython: dataclasses.py,
`exec(txt, globals, ns)`). `use` gives it one that finds the text's code in a file, which `make` has written
with the same Python. Text that is not in there is compiled as ever: a file that is missing or old costs time.
"""

from __future__ import annotations

import dataclasses
import importlib
import marshal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any


def name(tag: str) -> str:
    """Of the file in this folder that the Python with that cache tag has."""
    return f"dataclasses.{tag}.code"


FILE = Path(__file__).with_name(name(str(sys.implementation.cache_tag)))


def use(path: Path = FILE) -> None:
    """From now on, take code from `path`; without such a file nothing changes."""
    if path.exists():
        _exec_with(marshal.loads(path.read_bytes()))


def make(path: Path, modules: Sequence[str]) -> None:
    """Import `modules`, which nothing has imported yet, and write to `path` what that compiles."""
    codes: dict[str, CodeType] = {}
    _exec_with(codes, codes)
    for module in modules:
        importlib.import_module(module)
    path.write_bytes(marshal.dumps(codes))


def _exec_with(known: Mapping[str, CodeType], compiled: dict[str, CodeType] | None = None) -> None:
    def run(text: str, names: dict[str, Any], made: dict[str, Any]) -> None:
        code = known.get(text)
        if code is None:
            # As in dataclasses.py, and not as in this file: annotations are no text.
            code = compile(text, "<string>", "exec", dont_inherit=True)
            if compiled is not None:
                compiled[text] = code
        exec(code, names, made)

    vars(dataclasses)["exec"] = run


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
