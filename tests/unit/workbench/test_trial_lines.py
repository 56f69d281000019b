# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose lines of source a finding gets: those of the kernel that spoke, also where two have one release."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiroot.lab.lab import Options
from multiroot.phases import Phases
from multiroot.verdict.findings import Source
from multiroot.workbench import evidence
from multiroot.workbench.evidence import GUEST, Evidence
from multiroot.workbench.reached import AFTER_NEXT, AFTER_UPDATE, NEW, OLD, Reached, Started
from multiroot.workbench.trial import Trial
from multiroot.workbench.wanted import Wanted

RELEASE = "6.12.1-mine"
BANNER = f"1234567 [    0.000000] Linux version {RELEASE}\n"
WARNING = "1234567 [    5.000000] WARNING: CPU: 0 PID: 1 at frob.c:8 frob+0x1/0x2\n"


class Build:
    """Says of every place which build it was looked up in."""

    def __init__(self, name: str) -> None:
        self._name = name

    def lines(self, texts: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(texts, self._name)


@pytest.fixture(autouse=True)
def _two_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one release; the lab calls them a and b."""
    sources = [SimpleNamespace(name=name, release=RELEASE) for name in "ab"]
    monkeypatch.setattr(evidence.lab, "own_kernels", lambda options: sources)
    monkeypatch.setattr(evidence.lab, "kernel_name", lambda text: text[-1])
    monkeypatch.setattr(evidence, "_symbols_of", lambda source: Build(source.name))
    monkeypatch.setattr(evidence.state, "load", lambda name: SimpleNamespace(resets=lambda: 0))


def lines(folder: Path, reached: Reached) -> list[str]:
    """In which build each finding of the consoles in `folder` was looked up, "" in none."""
    kernels = {name: SimpleNamespace(release=release) for name, release in (("a", RELEASE), ("b", RELEASE))}
    built: Any = SimpleNamespace(kernels=kernels | {"6.1": SimpleNamespace(release="6.1.0")})
    machine: Any = SimpleNamespace(name="try", state=folder)
    trial = Trial(())
    wanted = Wanted(lab=Options(kernel="~/a", kernels=("~/b",)), new="~/b")
    Evidence(wanted, trial, Phases("workstation"), machine, built, reached).collect()
    return [each.lines[0].partition(": ")[2] if each.lines else "" for each in trial.findings]


def test_two_kernels_of_one_release(tmp_path: Path) -> None:
    """As in a bisect. The new one warns before it has joined."""
    (tmp_path / "console-old.log").write_text(BANNER + WARNING)
    (tmp_path / "console-new.log").write_text(BANNER + WARNING)
    reached = Reached(started=[Started(OLD, "old", "a"), Started(NEW, "new", "b")])
    assert lines(tmp_path, reached) == ["a", "b"]


def test_kernels_that_follow_one_another_on_a_console(tmp_path: Path) -> None:
    """The old root's was booted twice, for the first attempt hung."""
    (tmp_path / "console-old.log").write_text(BANNER + BANNER + WARNING + BANNER + WARNING)
    reached = Reached(started=[Started(OLD, "old", "a"), Started(AFTER_NEXT, "old", "b", 2)])
    assert lines(tmp_path, reached) == ["a", "b"]


@pytest.mark.parametrize(("first", "seen"), [("a", ""), ("6.1", "b"), ("b", "b")])
def test_of_kernels_that_do_not_tell_who_they_are_the_release_decides(
    tmp_path: Path, first: str, seen: str
) -> None:
    (tmp_path / "console-new.log").write_text(BANNER + WARNING)
    reached = Reached(started=[Started(NEW, "new", first), Started(AFTER_UPDATE, "new", "b")])
    assert lines(tmp_path, reached) == [seen]


def test_a_guest_has_a_kernel_of_its_own() -> None:
    reached = Reached(started=[Started(OLD, "old", "a"), Started("the guest", GUEST, "b")])
    assert reached.kernels_of(Source(GUEST)) == {"b"}
    assert reached.kernels_of(Source("new")) == set()
