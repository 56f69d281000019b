# SPDX-License-Identifier: GPL-2.0-or-later
"""Contenders take turns in an order that the seed decides; one that fails does not stop the others."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.contender import interleave
from multiroot.bench.results.samples import Recorder, Sample
from multiroot.errors import CommandError, ConflictError
from multiroot.phases import Phases


class Fake:
    def __init__(self, name: str, log: list[str], *, broken: str = "") -> None:
        self.name = name
        self._log = log
        self._broken = broken

    def prepare(self) -> None:
        if self._broken == "prepare":
            raise ConflictError("no room")

    def sample(self) -> list[Sample]:
        self._log.append(self.name)
        if self._broken == "sample":
            raise CommandError("it broke")
        return [Sample(self.name, 0, {"blackout_ns": 5.0})]

    def close(self) -> None:
        self._log.append(f"close {self.name}")


def play(path: Path, seed: int, rounds: int, *fakes: Fake) -> list[Sample]:
    recorder = Recorder(path)
    samples = interleave(fakes, rounds, seed, recorder, Phases("test"))
    recorder.close()
    return samples


@given(st.integers(0, 1000), st.integers(1, 6))
def test_each_round_has_everybody_once(tmp_path_factory: object, seed: int, rounds: int) -> None:
    path = tmp_path_factory.mktemp("run") / "samples.jsonl"  # type: ignore[attr-defined]
    log: list[str] = []
    again: list[str] = []
    samples = play(path, seed, rounds, *(Fake(name, log) for name in "abc"))
    play(path, seed, rounds, *(Fake(name, again) for name in "abc"))
    assert log == again
    assert log[-3:] == ["close c", "close b", "close a"]
    for number in range(rounds):
        turn = [sample.contender for sample in samples if sample.round == number]
        assert sorted(turn) == ["a", "b", "c"]


def test_the_order_changes(tmp_path: Path) -> None:
    log: list[str] = []
    play(tmp_path / "samples.jsonl", 1, 8, *(Fake(name, log) for name in "abc"))
    assert len({tuple(log[start : start + 3]) for start in range(0, 24, 3)}) > 1


def test_who_fails_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    log: list[str] = []
    fakes = (Fake("a", log, broken="prepare"), Fake("b", log, broken="sample"), Fake("c", log))
    samples = play(path, 1, 2, *fakes)
    assert {(s.contender, s.failed) for s in samples} == {("b", "it broke"), ("c", "")}
    assert '"skipped", "contender": "a", "why": "no room"' in path.read_text()
    assert "close a" not in log
    assert log[-2:] == ["close c", "close b"]
