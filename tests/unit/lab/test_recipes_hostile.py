# SPDX-License-Identifier: GPL-2.0-or-later
"""Any recipe file is understood, or refused in one line that names the file."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anything import spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.audit.rows import Rows
from multiroot.errors import BadRequestError
from multiroot.lab import paths, recipes, state
from multiroot.lab.recipes import KernelRecipes, MachineRecipe, RootRecipes, WorkstationRecipe

PIECES = (b'"', b"[", b"0", b"9" * 30, b"\n[x]\n", b"\xff", b"3T", b"[" * 3000)
FILES: dict[str, Any] = {
    "machines/passthrough.toml": MachineRecipe,
    "workstation/machine.toml": WorkstationRecipe,
    "kernels.toml": KernelRecipes,
    "roots.toml": RootRecipes,
}


@st.composite
def spoiled_text(draw: st.DrawFn) -> tuple[bytes, Any]:
    """A recipe of ours with some characters or words replaced."""
    name = draw(st.sampled_from(sorted(FILES)))
    text = (paths.recipes_dir() / name).read_bytes()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        new = draw(st.binary(max_size=6) | st.sampled_from(PIECES))
        text = text[:at] + new + text[at + draw(st.integers(0, 12)) :]
    return text, FILES[name]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoiled_text() | st.tuples(st.binary(max_size=60), st.sampled_from(list(FILES.values()))))
def test_any_recipe_is_understood_or_refused(tmp_path: Path, case: tuple[bytes, Any]) -> None:
    text, model = case
    path = tmp_path / "recipe.toml"
    path.write_bytes(text)
    with suppress(BadRequestError):
        recipes.read(path, model)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoiled_text())
def test_any_list_of_global_state_is_understood_or_refused(tmp_path: Path, case: tuple[bytes, Any]) -> None:
    path = tmp_path / "global-state.toml"
    path.write_bytes(case[0])
    with pytest.raises(BadRequestError):
        recipes.read(path, Rows)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_state_of_a_lab_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    from lab.machines import default_machine

    lab = state.create(default_machine(tmp_path, monkeypatch), "digest")
    file = lab.folder / "lab.json"
    value = data.draw(spoiled(json.loads(file.read_text())).map(json.dumps) | st.text(max_size=20))
    file.write_text(value)
    with suppress(BadRequestError):
        state.load("default").alive()
    with suppress(BadRequestError):
        state.running()


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("cpus = " + "[" * 100_000)
    with pytest.raises(BadRequestError, match=r"recipe\.toml is not valid TOML"):
        recipes.read(path, MachineRecipe)
