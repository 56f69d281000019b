# SPDX-License-Identifier: GPL-2.0-or-later
"""What takes part in a comparison, and the runner that lets all take turns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from multiroot import phase_names
from multiroot.bench.results.samples import Recorder, Sample
from multiroot.errors import MultirootError
from multiroot.phases import Phases


class Contender(Protocol):
    """One way of doing a thing. Between its samples it keeps still, so as not to disturb the others."""

    @property
    def name(self) -> str: ...

    def prepare(self) -> None:
        """Whatever is needed once. Raises MultirootError when it can't take part here."""

    def sample(self) -> list[Sample]:
        """Do it once; `round` of what is returned is filled in by the runner."""

    def close(self) -> None:
        """Leave nothing behind."""


def interleave(
    contenders: Sequence[Contender], rounds: int, seed: int, recorder: Recorder, phases: Phases
) -> list[Sample]:
    """Let all contenders take turns, in an order that is shuffled anew each round.

    One that can't take part is noted and left out; one whose sample fails has a failed sample and goes on.
    What was measured is recorded at once.
    """
    ready: list[Contender] = []
    samples: list[Sample] = []
    try:
        for contender in contenders:
            try:
                with phases.phase(phase_names.prepare(contender.name)):
                    contender.prepare()
            except MultirootError as error:
                recorder.skipped(contender.name, str(error))
            else:
                ready.append(contender)
        dice = random.Random(seed)
        for number in range(rounds):
            for contender in dice.sample(ready, len(ready)):
                for sample in _turn(contender, number, phases):
                    recorder.sample(sample)
                    samples.append(sample)
    finally:
        for contender in reversed(ready):
            contender.close()
    return samples


def _turn(contender: Contender, number: int, phases: Phases) -> list[Sample]:
    try:
        with phases.phase(contender.name, round=number) as attributes:
            taken = contender.sample()
            for sample in taken:
                if "blackout_ns" in sample.values:
                    attributes["blackout_ms"] = round(sample.values["blackout_ns"] / 1e6, 1)
    except MultirootError as error:
        return [Sample(contender.name, number, failed=str(error))]
    return [Sample(each.contender, number, each.values, each.phases, each.failed) for each in taken]
