# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench compare`: two revisions of this project take turns in one run.

A turn is a whole bench of that revision, by its own code, in a machine of its own: what a host does in one
hour and not in the next concerns both alike.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from multiroot import proc
from multiroot.bench.contender import interleave
from multiroot.bench.names import OURS
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read, variant_name
from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import paths
from multiroot.phases import Phases

WORK_TREE = "."  # the source as it is, committed or not
USUAL = ("handoff", "--contenders", OURS, "--rounds", "5")
_OURS_TO_SAY = ("--out", "--name", "--json")
_MADE = ".made"


@dataclass(frozen=True)
class Options:
    """Two revisions as git knows them, or `WORK_TREE`; `words` are those of `multiroot bench` for a turn;
    `lab` is what the names of the labs they have it in begin with.
    """

    revisions: tuple[str, str]
    words: tuple[str, ...] = USUAL
    rounds: int = 3
    seed: int = 1
    lab: str = "compare"

    def checked(self) -> Options:
        """Raises BadRequestError for what makes no sense."""
        if not self.words or self.words[0].startswith("-"):
            raise BadRequestError("which bench?", "multiroot bench compare main . -- handoff --rounds 5")
        for word in self.words:
            if word.partition("=")[0] in _OURS_TO_SAY:
                raise BadRequestError(f"{word.partition('=')[0]} is said for each turn", "leave it out")
        if self.words[0] == "compare":
            raise BadRequestError("a turn cannot be a comparison", "name another bench: handoff")
        return self


@dataclass(frozen=True)
class Source:
    """A revision: what it is called, its commit, its tree."""

    label: str
    commit: str
    tree: Path


class Turns:
    """A revision as a contender."""

    def __init__(self, source: Source, options: Options, out: Path) -> None:
        self.name = source.label
        self._tree = source.tree
        self._options = options
        # One version cannot read what another has kept of its lab.
        self._lab = f"{options.lab}-{hashlib.sha256(source.commit.encode()).hexdigest()[:8]}"
        self._out = out
        self._taken = 0

    def prepare(self) -> None:
        """Build what it needs and keeps, so that no turn does."""
        self._out.mkdir(parents=True, exist_ok=True)
        if not (self._tree / _MADE).exists() and self._tree != paths.source_dir():
            build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
            proc.run(build, cwd=self._tree, log=self._log)
            (self._tree / _MADE).touch()
        self._multiroot("lab", "build")

    def sample(self) -> list[Sample]:
        folder = self._out / f"{self._taken:02}"
        self._taken += 1
        words = self._options.words
        self._multiroot("bench", *words, "--out", str(folder), "--name", self._lab)
        run = read(folder / "samples.jsonl")
        if not any(sample.values for sample in run.samples):
            failed = next((sample.failed for sample in run.samples if sample.failed), "it measured nothing")
            raise CommandError(f"bench {words[0]}: {failed}", f"see {folder}")
        alone = len(run.contenders()) == 1
        return [
            replace(each, contender=variant_name(self.name, "" if alone else each.contender))
            for each in run.samples
        ]

    def close(self) -> None:
        """A turn that was cut short may have left its machine."""
        self._multiroot("lab", "down", "--name", self._lab, check=False)

    @property
    def _log(self) -> Path:
        return self._out / "log"

    def _multiroot(self, *words: str, check: bool = True) -> None:
        argv = [sys.executable, "-m", "multiroot.cli.main", *words]
        env = {"PYTHONPATH": str(self._tree)}
        proc.run(argv, cwd=self._tree, env=env, log=self._log, check=check)


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on, and each turn's own files beside it."""
    options = options.checked()
    one, other = (find(revision) for revision in options.revisions)
    if one.label == other.label:
        raise BadRequestError(f"{one.label} beside itself", "name two revisions")
    sources = [source if source.tree.exists() else _unpack(source) for source in (one, other)]
    kept = {
        "revisions": {source.label: source.commit for source in sources},
        "words": list(options.words),
        "rounds": options.rounds,
    }
    with closing(Recorder(out / "samples.jsonl")) as recorder:
        recorder.header(provenance.header("compare", options.seed, kept, {}))
        turns = [Turns(source, options, out / f"turns-{number}") for number, source in enumerate(sources, 1)]
        interleave(turns, options.rounds, options.seed, recorder, phases)
    return read(out / "samples.jsonl")


def find(revision: str) -> Source:
    """What is meant; its tree may not be there yet. Raises BadRequestError for what git does not know."""
    here = paths.source_dir()
    if revision == WORK_TREE:
        return Source("work tree", provenance.revision(), here)
    asked = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    found = proc.run(asked, cwd=here, check=False)
    commit = found.stdout.strip()
    if found.returncode or not re.fullmatch("[0-9a-f]{40,64}", commit):
        raise BadRequestError(f"git knows no revision {revision!r}", "see: git log --oneline")
    # A comma would say which of several contenders it is.
    label = revision.replace(",", "_")
    return Source(label, commit, paths.cache_path() / "revisions" / commit)


def _unpack(source: Source) -> Source:
    """Put a commit's files where its tree is to be, all or nothing."""
    folder = paths.make_dir(source.tree.parent)
    partial = folder / f"{source.commit}.partial"
    archive = folder / f"{source.commit}.tar"
    shutil.rmtree(partial, ignore_errors=True)
    words: Sequence[str | Path] = ["git", "archive", "--format=tar", "-o", archive, source.commit]
    proc.run(words, cwd=paths.source_dir())
    with tarfile.open(archive) as files:
        files.extractall(partial, filter="data")
    archive.unlink()
    partial.rename(source.tree)
    return source


def first_metric(run: Run) -> str:
    """What decides: the blackout if there is one, else what was measured first. Raises BadRequestError."""
    metrics = run.metrics()
    if not metrics:
        skipped = "; ".join(f"{name}: {why}" for name, why in run.skipped.items())
        failed = "; ".join(f"{each.contender}: {each.failed}" for each in run.samples if each.failed)
        raise BadRequestError(f"nothing was measured: {skipped or failed or 'no turn was taken'}")
    return "blackout_ns" if "blackout_ns" in metrics else metrics[0]
