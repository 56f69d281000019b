# SPDX-License-Identifier: GPL-2.0-or-later
"""Two revisions take turns: each by its own code, in an order that is shuffled."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from multiroot.bench import revisions
from multiroot.bench.results.render import ratios
from multiroot.bench.revisions import Options, first_metric
from multiroot.cli.program import cli
from multiroot.errors import BadRequestError
from multiroot.lab import paths
from multiroot.phases import Phases

# Stands in for multiroot: measures what its revision says, and tells what it was called with.
MAIN = """\
import json, sys
from pathlib import Path
BLACKOUTS = {blackouts}
with open(Path(__file__).parents[2] / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
words = sys.argv[1:]
if words[0] == "bench":
    out = Path(words[words.index("--out") + 1])
    out.mkdir(parents=True)
    names = words[words.index("--contenders") + 1].split(",")
    with (out / "samples.jsonl").open("w") as file:
        header = dict(kind="run", format=1, bench="handoff", started="", revision="", host={{}},
                      versions={{}}, load=0.0, seed=1, options={{}})
        print(json.dumps(header), file=file)
        for contender in names:
            for number, value in enumerate(BLACKOUTS):
                sample = dict(kind="sample", contender=contender, round=number, phases=[], failed="",
                              values=dict(blackout_ns=value, gap_ns=value * 2))
                print(json.dumps(sample), file=file)
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with two revisions, "slow" and "fast", which is half as slow. The tree is as the latter."""
    tree = tmp_path / "clone"
    (tree / "multiroot/cli").mkdir(parents=True)
    for package in ("multiroot", "multiroot/cli"):
        (tree / package / "__init__.py").touch()
    (tree / "setup.py").write_text("import sys; open('built', 'a').write('x'); print('no compiler' * 0)\n")
    monkeypatch.setattr(paths, "source_dir", lambda: tree)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    git(tree, "init", "--quiet")
    for tag, blackouts in (("slow", [40e6, 42e6, 44e6]), ("fast", [20e6, 21e6, 22e6])):
        (tree / "multiroot/cli/main.py").write_text(MAIN.format(blackouts=blackouts))
        git(tree, "add", "multiroot", "setup.py")
        git(tree, "commit", "--quiet", "--allow-empty", "-m", tag)
        git(tree, "tag", tag)
    return tree


def git(tree: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run(["git", *who, *words], cwd=tree, check=True)


def calls(tree: Path) -> list[str]:
    return (tree / "calls").read_text().splitlines()


def test_each_revision_is_measured_by_its_own_code(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = revisions.run(Options(("slow", "fast"), rounds=2), out, Phases("here"))
    assert sorted(run.contenders()) == ["fast", "slow"]
    assert run.values("slow", "blackout_ns") == [40e6, 42e6, 44e6] * 2
    assert [sample.round for sample in run.samples if sample.contender == "slow"] == [0, 0, 0, 1, 1, 1]
    assert first_metric(run) == "blackout_ns"
    assert ratios(run, "blackout_ns", "slow")["fast"].value == pytest.approx(0.5)
    # Built once, never measured from the clone itself, and nothing is left running.
    labs = set()
    for revision in ("slow", "fast"):
        tree = revisions.find(revision).tree
        assert (tree / "built").read_text() == "x"
        first, *turns, last = calls(tree)
        *down, lab = last.split()
        assert (first, down) == ("lab build", ["lab", "down", "--name"])
        assert [turn.split()[-1] for turn in turns] == [lab, lab]
        labs.add(lab)
    # One version cannot read what another has kept of its lab.
    assert len(labs) == 2
    assert all(lab.startswith("compare-") for lab in labs)
    assert not (repository / "calls").exists()
    assert len(list(out.glob("turns-*/*/samples.jsonl"))) == 4


def test_a_tree_that_is_there_is_not_built_again(repository: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        revisions.run(Options(("slow", "fast"), rounds=1), tmp_path / out, Phases("here"))
    assert (revisions.find("slow").tree / "built").read_text() == "x"


def test_the_work_tree_is_a_revision_too(repository: Path, tmp_path: Path) -> None:
    main = repository / "multiroot/cli/main.py"
    main.write_text(MAIN.format(blackouts=[10e6]))
    run = revisions.run(Options(("fast", "."), rounds=1), tmp_path / "out", Phases("here"))
    assert run.values("work tree", "blackout_ns") == [10e6]
    assert not (repository / "built").exists()


def test_several_contenders_are_compared_with_their_equals(repository: Path, tmp_path: Path) -> None:
    words = ("handoff", "--contenders", "multi-root,in-place")
    run = revisions.run(Options(("slow", "fast"), words, 1), tmp_path / "out", Phases("here"))
    found = ratios(run, "blackout_ns", "slow")
    assert {name: each.value for name, each in found.items()} == {
        "fast, multi-root": pytest.approx(0.5),
        "fast, in-place": pytest.approx(0.5),
    }


def test_a_turn_that_fails_is_told_and_the_others_go_on(repository: Path, tmp_path: Path) -> None:
    (repository / "multiroot/cli/main.py").write_text("import sys; sys.exit('lab' not in sys.argv)\n")
    run = revisions.run(Options(("fast", "."), rounds=1), tmp_path / "out", Phases("here"))
    assert run.values("fast", "blackout_ns")
    (failed,) = [sample for sample in run.samples if sample.failed]
    assert failed.contender == "work tree"
    assert "exited with 1" in failed.failed


def test_one_that_cannot_be_built_is_left_out(repository: Path, tmp_path: Path) -> None:
    (repository / "setup.py").write_text("raise SystemExit('no compiler')\n")
    git(repository, "commit", "--quiet", "-am", "broken")
    git(repository, "tag", "broken")
    run = revisions.run(Options(("broken", "fast"), rounds=1), tmp_path / "out", Phases("here"))
    assert "no compiler" in run.skipped["broken"]
    assert run.contenders() == ["fast"]


def test_when_nothing_was_measured_the_reason_is_the_error(repository: Path, tmp_path: Path) -> None:
    main = repository / "multiroot/cli/main.py"
    main.write_text("import sys; sys.exit('no lab here')\n")
    git(repository, "commit", "--quiet", "-am", "none")
    run = revisions.run(Options(("HEAD", "."), rounds=1), tmp_path / "out", Phases("here"))
    with pytest.raises(BadRequestError, match="no lab here"):
        first_metric(run)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("slow", "none"), "git knows no revision 'none'"),
        (("--", "-v", "slow"), "git knows no revision '-v'"),
        (("slow", "slow"), "slow beside itself"),
        (("slow", "fast", "--", "--rounds", "3"), "which bench"),
        (("slow", "fast", "--", "handoff", "--out=/tmp/x"), "--out is said for each turn"),
        (("slow", "fast", "--", "hadnoff"), "no bench called 'hadnoff'"),
        (("slow", "fast", "--", "compare", "a", "b"), "cannot be a comparison"),
    ],
)
def test_what_cannot_be_meant(repository: Path, words: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(cli, ["bench", "compare", *words])
    assert isinstance(done.exception, BadRequestError), done.output
    assert says in done.exception.message
    assert not (repository / "calls").exists()


def test_the_command_prints_ratios_and_keeps_all(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli,
        ["bench", "compare", "slow", "fast", "--turns", "1", "--out", str(out), "--json"],
        catch_exceptions=False,
    )
    data = json.loads(done.stdout)
    assert data["ratios"]["to"] == "slow"
    assert set(data["ratios"]["of"]) == {"fast"}
    assert (out / "report.html").exists()
    assert len(data["header"]["options"]["revisions"]["slow"]) == 40
