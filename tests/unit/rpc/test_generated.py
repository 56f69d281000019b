# SPDX-License-Identifier: GPL-2.0-or-later
"""The committed stubs are what the .proto files generate."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.rpc import generate


def test_committed_stubs_are_current(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in generate.OUT.glob("*_pb2*")}
    assert sorted(made) == sorted(committed)
    for name, text in made.items():
        if text != committed[name]:
            pytest.fail(f"{name} is out of date: run `python -m multiroot.rpc.generate`")
