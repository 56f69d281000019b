# SPDX-License-Identifier: GPL-2.0-or-later
"""Content hashes: they change if, and only if, what goes in changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.lab import kernels, recipes, roots
from multiroot.lab.artifacts import Artifact, digest_tree, source_files


def artifact(name: str, inputs: dict[str, str]) -> Artifact:
    return Artifact(name, inputs, lambda out: None)


texts = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4)


@given(st.text(max_size=4), texts, st.text(max_size=4), texts)
def test_equal_digests_mean_equal_inputs(
    name: str, inputs: dict[str, str], other_name: str, other: dict[str, str]
) -> None:
    same = (name, inputs) == (other_name, other)
    assert (artifact(name, inputs).digest == artifact(other_name, other).digest) == same


def test_order_of_inputs_does_not_count() -> None:
    assert artifact("a", {"x": "1", "y": "2"}).digest == artifact("a", {"y": "2", "x": "1"}).digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.c").write_text("int a;\n")
    (tmp_path / "sub/b.h").write_text("int b;\n")
    return tmp_path


def test_the_digest_of_a_tree_sees_content_name_and_mode(tree: Path) -> None:
    digests = {digest_tree(tree)}
    (tree / "a.c").write_text("int A;\n")
    digests.add(digest_tree(tree))
    (tree / "a.c").rename(tree / "c.c")
    digests.add(digest_tree(tree))
    (tree / "c.c").chmod(0o755)
    digests.add(digest_tree(tree))
    (tree / "link").symlink_to("c.c")
    digests.add(digest_tree(tree))
    assert len(digests) == 5


def test_the_digest_of_a_tree_does_not_see_what_builds_leave(tree: Path) -> None:
    before = digest_tree(tree)
    for name in (
        "a.o",
        ".a.o.cmd",
        "x.mod.c",
        "Module.symvers",
        "sub/__pycache__/b.pyc",
        ".git/HEAD",
        "a.c~",
    ):
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("built")
    (tree / "a.c").touch()
    assert digest_tree(tree) == before
    assert [path.name for path in source_files(tree)] == ["a.c", "b.h"]


def test_a_root_depends_on_its_recipe_alone() -> None:
    recipe = recipes.roots().emulator
    digest = roots.artifact("emulator", recipe).digest
    assert roots.artifact("emulator", recipe.model_copy()).digest == digest
    for change in ({"suite": "sid"}, {"packages": ("gcc",)}, {"backports": ()}, {"exclude": ("/x",)}):
        assert roots.artifact("emulator", recipe.model_copy(update=change)).digest != digest


def test_a_root_depends_on_its_hooks_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = recipes.roots().kernel.model_copy(update={"suite": "trixie"})
    digest = roots.artifact("x", recipe).digest
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots/download-kernel").write_text("#!/bin/sh\n")
    monkeypatch.setattr("multiroot.lab.paths.recipes_dir", lambda: tmp_path)
    assert roots.artifact("x", recipe).digest != digest


def test_kernels_of_one_suite_with_and_without_backports_differ() -> None:
    found = recipes.kernels().kernel
    common = recipes.roots()
    digests = {kernels.root_artifact(each, common.for_kernel(each.flavour)).digest for each in found}
    assert len(digests) == len(found)
