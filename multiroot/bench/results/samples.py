# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw results: a run's header and every single sample, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from multiroot.errors import BadRequestError
from multiroot.phases import Phase

FORMAT = 1
_VARIANT = ", "


def variant_name(contender: str, variant: str) -> str:
    """What a contender is called with one of several kinds of VM; just its own name if there is one kind."""
    return f"{contender}{_VARIANT}{variant}" if variant else contender


def kind_of(name: str) -> str:
    """The kind of VM in what `variant_name` made, "" if there is none."""
    return name.partition(_VARIANT)[2]


@dataclass(frozen=True)
class Header:
    """What must be known to judge a run. `load` is the host's 1-minute load average before it began."""

    bench: str
    started: str  # ISO 8601, UTC
    revision: str
    host: dict[str, Any]
    versions: dict[str, str]
    load: float
    seed: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One measurement of one contender.

    `values` are numbers by metric; a metric's name ends in its unit (`_ns`, `_bytes`, ...). `phases` are on
    the lab machine's TSC clock. `failed` says why there are no values.
    """

    contender: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Run:
    """A run as read back; `skipped` says which contenders could not take part, and why."""

    header: Header
    samples: tuple[Sample, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def values(self, contender: str, metric: str) -> list[float]:
        """That metric of every sample of one contender, in the order they were taken."""
        return [s.values[metric] for s in self.samples if s.contender == contender and metric in s.values]

    def contenders(self) -> list[str]:
        """Who has samples, in the order they first came."""
        return list(dict.fromkeys(sample.contender for sample in self.samples))

    def beside(self, contender: str, base: str) -> str:
        """`base` with the same kind of VM as `contender`; plain `base` when it has no kinds."""
        with_kind = variant_name(base, kind_of(contender))
        return with_kind if with_kind in self.contenders() else base

    def any_kind(self, contender: str) -> str:
        """The contender itself, or the first kind of it that has samples."""
        names = self.contenders()
        return next((name for name in names if name.partition(_VARIANT)[0] == contender), contender)

    def metrics(self) -> list[str]:
        """Every metric that occurs, in the order they first came."""
        return list(dict.fromkeys(metric for sample in self.samples for metric in sample.values))


class Recorder:
    """Writes a run's file as it goes on, so that a run cut short leaves what it has measured.

    There is no file before there is something to write: what is refused leaves an earlier run's as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def header(self, header: Header) -> None:
        self._write({"kind": "run", "format": FORMAT, **asdict(header)})

    def sample(self, sample: Sample) -> None:
        self._write({"kind": "sample", **asdict(sample)})

    def skipped(self, contender: str, why: str) -> None:
        self._write({"kind": "skipped", "contender": contender, "why": why})

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def read(path: Path) -> Run:
    """A run's file; raises BadRequestError when it is none."""
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        return parse(records)
    except FileNotFoundError as error:
        raise BadRequestError(f"there is no file {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequestError(f"{path} does not hold the samples of a run: {error}") from error


def parse(records: Iterable[dict[str, Any]]) -> Run:
    """The run that decoded records make up; raises ValueError, KeyError or TypeError for anything else."""
    header: Header | None = None
    samples: list[Sample] = []
    skipped: dict[str, str] = {}
    for record in records:
        fields = dict(record)
        kind = fields.pop("kind")
        if kind == "run":
            if fields.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            header = Header(**fields)
        elif kind == "sample":
            phases = tuple(Phase(**phase) for phase in fields.pop("phases"))
            samples.append(Sample(**fields, phases=phases))
        elif kind == "skipped":
            skipped[fields["contender"]] = fields["why"]
    if header is None:
        raise ValueError("it has no header")
    return Run(header, tuple(samples), skipped)
