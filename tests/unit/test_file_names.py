# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest imports a test file by its name, and by its folders' as far as these are packages. Of two that come
out the same it runs the first and fails at the second.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def module(path: Path) -> str:
    """What pytest imports it as."""
    name, folder = path.stem, path.parent
    while (folder / "__init__.py").exists():
        name, folder = f"{folder.name}.{name}", folder.parent
    return name


def test_no_two_test_files_are_imported_as_one() -> None:
    names = Counter(map(module, TESTS.rglob("test_*.py")))
    assert [name for name, count in names.items() if count > 1] == []
