# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: whole artifacts or none, one build at a time, old ones go."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from multiroot.errors import CommandError
from multiroot.lab.artifacts import Artifact
from multiroot.lab.cache import Cache
from multiroot.phases import Phases


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", Phases("workstation"))


def test_it_builds_once_and_says_so(cache: Cache) -> None:
    built: list[Path] = []

    def build(out: Path) -> None:
        built.append(out)
        (out / "file").write_text("made")

    artifact = Artifact("thing", {}, build)
    assert not cache.has(artifact)
    assert (cache.ensure(artifact) / "file").read_text() == "made"
    assert cache.ensure(artifact) == cache.path(artifact)
    assert len(built) == 1
    assert [phase.name for phase in cache.phases.finished] == ["build thing"]


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(cache: Cache) -> None:
    fail = True

    def build(out: Path) -> None:
        (out / "half").write_text("half")
        if fail:
            raise CommandError("compiler fell over")

    artifact = Artifact("thing", {}, build)
    with pytest.raises(CommandError):
        cache.ensure(artifact)
    assert not cache.has(artifact)
    fail = False
    assert (cache.ensure(artifact) / "half").exists()


def test_builds_at_once_do_the_work_once(cache: Cache) -> None:
    together = threading.Barrier(4)
    count = []

    def build(out: Path) -> None:
        count.append(out)

    def ensure(_: int) -> Path:
        together.wait()
        return Cache(cache.root, Phases("workstation")).ensure(Artifact("thing", {"x": "1"}, build))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ensure, range(4)))) == 1
    assert len(count) == 1


def test_pruning_keeps_the_newest_and_other_names(cache: Cache) -> None:
    artifacts = [Artifact("image", {"n": str(n)}, lambda out: None) for n in range(4)]
    other = Artifact("image-like", {}, lambda out: None)
    for age, artifact in enumerate([*artifacts, other]):
        cache.ensure(artifact)
        os.utime(cache.path(artifact), (1000 - age, 1000 - age))
    cache.touch(artifacts[3])
    assert len(cache.prune("image", 2)) == 2
    assert [cache.has(artifact) for artifact in [*artifacts, other]] == [True, False, False, True, True]


def test_two_prune_at_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is faster."""
    for name in ("old", "new"):
        (cache.root / f"thing-{name:0>16}").mkdir()
    monkeypatch.setattr("multiroot.lab.mounts.detach", shutil.rmtree)
    assert len(cache.prune("thing", 1)) == 1
    assert len(list(cache.root.glob("thing-*"))) == 1


def test_a_forgotten_artifact_is_built_again(cache: Cache) -> None:
    count: list[Path] = []
    artifact = Artifact("thing", {}, count.append)
    cache.ensure(artifact)
    cache.forget(artifact)
    assert not cache.has(artifact)
    cache.ensure(artifact)
    assert len(count) == 2
