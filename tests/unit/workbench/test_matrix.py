# SPDX-License-Identifier: GPL-2.0-or-later
"""A matrix: which trials it is, which of them are done, how it goes on, and its page."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.cli.try_ import try_
from multiroot.errors import BadRequestError, MultirootError
from multiroot.lab import recipes
from multiroot.lab.backends import Backend
from multiroot.workbench import matrix as matrices
from multiroot.workbench.kselftest import SELFTESTS
from multiroot.workbench.matrix import (
    Cell,
    Matrix,
    Result,
    arguments,
    at_once,
    cells,
    digest,
    digests,
    load,
    read,
    to_do,
)
from multiroot.workbench.matrix_page import page
from multiroot.workbench.matrix_run import Run, code_of, command

LONG = "x" * 300  # is no name of a file
TWO = 'old = "6.1"\nnew = ["6.1", "6.12"]\ncommand = ["true"]\n'


def matrix(text: str, folder: Path) -> Matrix:
    (folder / "m.toml").write_text(text)
    return read(folder / "m.toml")


def test_every_combination_is_a_cell(tmp_path: Path) -> None:
    text = 'old = ["6.1", "6.12"]\nnew = "7.x"\nmachine = ["default", "one-cpu"]\n'
    text += 'in = ["old", "new"]\nuntil = "launch"\n'
    made = matrix(text + 'without = [{ old = "6.1", in = "old" }]\n', tmp_path)
    assert len(cells(made)) == 2 * 2 * 2 - 2
    assert Cell("6.12", "7.x", "one-cpu", "default", "default", "old") in cells(made)
    assert Cell("6.1", "7.x", "default", "default", "default", "old") not in cells(made)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('old = "6.1"\n', "new is missing"),
        ('old = "5.4"\nnew = "6.1"\n', "no kernel called '5.4'"),
        ('old = "6.1"\nnew = []\n', "new must hold at least 1"),
        ('old = "6.1"\nnew = "6.1"\nmachine = "none"\n', "no machine called 'none'"),
        ('old = "6.1"\nnew = "6.1"\nbackend = "xfs"\n', "no backend 'xfs', there is default, own, ext4"),
        ('old = "6.1"\nnew = "6.1"\nguest = "5.4"\n', "no kernel called '5.4'"),
        ('old = "6.1"\nnew = "6.1"\nin = "guest"\n', "no in 'guest', there is old, new, vm, workstation"),
        ('old = "6.1"\nnew = "6.1"\nuntil = "end"\n', "no until 'end'"),
        ('old = "6.1"\nnew = "6.1"\nkernels = "x"\n', "kernels is no key here"),
        ('old = "6.1"\nnew = "6.1"\nwithout = [{ x = "y" }]\n', "without: no 'x'"),
        ('old = "6.1"\nnew = "6.1"\nwithout = [{ old = "6.1" }]\n', "no cell is left"),
        ("old = \n", "not valid TOML"),
        ('old = "6.1"\nnew = "6.1"\nspeed = 1\n', "needed: old, new"),
        (TWO + 'without = [{ old = "5.4" }]\n', "without: no cell has old = '5.4' (there is 6.1)"),
        (TWO.replace("true", "./not-there"), "there is no file not-there"),
        (TWO.replace("true", "/etc/passwd"), "/etc/passwd is not executable (`chmod +x"),
        (TWO + 'carry = ["./not-there"]\n', "there is no file not-there"),
        (TWO + 'allow = ["./not-there"]\n', "there is no file not-there (a list is"),
        (TWO + 'kselftest = "../x"\n', "no kselftest '../x'"),
        (TWO + 'kselftest = "timers"\n', "kselftest runs in place of command"),
        (TWO + 'kselftest_tree = "/"\n', "kselftest_tree is for kselftest"),
        (
            TWO.replace('command = ["true"]', 'kselftest = "timers"\nkselftest_tree = "/"'),
            "/ holds no tools/testing/selftests",
        ),
        (TWO + 'carve = "much"\n', "much"),
        (TWO + "patience = 0\n", "patience must be"),
        (TWO + "timeout = inf\n", "timeout: Input should be a finite number"),
        (TWO + "join_timeout = -1\n", "join_timeout must be"),
    ],
)
def test_what_is_no_matrix(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        matrix(text, tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(BadRequestError, match=r"there is no file .*none\.toml"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("backend", "words"),
    [("default", ""), ("own", " multirootd.own-arena"), ("ext4", " multirootd.ext4-arena")],
)
def test_a_backend_is_a_word_for_the_roots(tmp_path: Path, backend: str, words: str) -> None:
    made = matrix(TWO + f'backend = "{backend}"\n', tmp_path)
    assert {each.backend for each in cells(made)} == {backend}
    assert Backend(backend).appended("quiet") == f"quiet{words}"


def test_a_cell_is_played_as_a_person_would(tmp_path: Path) -> None:
    made = matrix(
        TWO + 'append_new = "debug slub_debug"\nappend_guest = "kho=on"\ntimeout = 5\nrepeat = 3\n', tmp_path
    )
    words = arguments(made, cells(made)[1])
    assert words[:4] == ["--old", "6.1", "--new", "6.12"]
    assert words[-2:] == ["--", "true"]
    assert "--guest" not in words
    other = arguments(made, replace(cells(made)[1], guest="7.x"))
    assert other[other.index("--guest") :][:2] == ["--guest", "7.x"]
    assert "--backend" not in words
    own = arguments(made, replace(cells(made)[1], backend="own"))
    assert own[own.index("--backend") :][:2] == ["--backend", "own"]
    for pair in (
        ["--append-new", "debug slub_debug"],
        ["--append-guest", "kho=on"],
        ["--timeout", "5.0"],
        ["--repeat", "3"],
    ):
        assert pair == words[words.index(pair[0]) :][:2]


def test_what_debug_kernels_need_can_be_said(tmp_path: Path) -> None:
    text = 'carve = "2G"\npatience = 120\njoin_timeout = 900\nkselftest = "timers"\n'
    made = matrix(TWO.replace('command = ["true"]', text + f'kselftest_tree = "{tree(tmp_path)}"'), tmp_path)
    words = arguments(made, cells(made)[0])
    for pair in (
        ["--carve", str(2 << 30)],
        ["--patience", "120.0"],
        ["--join-timeout", "900"],
        ["--kselftest-tree", str(tmp_path / "tree")],
    ):
        assert pair == words[words.index(pair[0]) :][:2]
    plain = arguments(matrix(TWO, tmp_path), cells(made)[0])
    assert not {"--carve", "--patience", "--join-timeout", "--kselftest-tree"} & set(plain)
    parsed = try_.make_context("try", words, resilient_parsing=False)
    assert (parsed.params["carve"], parsed.params["patience"]) == (2 << 30, 120.0)


def tree(folder: Path) -> Path:
    """The source tree of a kernel, as far as its tests go."""
    tests = folder / "tree" / SELFTESTS
    for name in ("lib.mk", "kselftest.h", "timers/nanosleep.c", "kvm/set.c"):
        (tests / name).parent.mkdir(parents=True, exist_ok=True)
        (tests / name).write_text("one")
    return folder / "tree"


def test_a_digest_is_of_all_that_matters(tmp_path: Path) -> None:
    script = tmp_path / "test.sh"
    script.write_text("one")
    script.chmod(0o755)
    made = matrix(TWO.replace("true", str(script)), tmp_path)
    one, other = cells(made)
    first = digest(made, one, "ours")
    assert first == digest(made, one, "ours")
    assert len({first, digest(made, other, "ours"), digest(made, one, "changed")}) == 3
    script.write_text("two")
    assert digest(made, one, "ours") != first


def lab_of(made: Matrix, cell: Cell) -> str:
    words = command(made, cell, Path("out"))
    return words[words.index("--name") + 1]


def test_each_cell_has_a_lab_of_its_own(tmp_path: Path) -> None:
    """Also where the names are long: two labs of one name cannot run at a time."""
    made = matrix(TWO, tmp_path)
    kernel = "6.12.38+deb13-cloud-amd64-with-a-long-name"
    many = [
        Cell(kernel, kernel, "low-carve", "own", guest, where)
        for guest in ("default", "7.x")
        for where in ("old", "new", "vm")
    ]
    labs = [lab_of(made, cell) for cell in many]
    assert len(set(labs)) == len(many)
    assert all(len(each) <= 60 and each.startswith("matrix-6.12.38") for each in labs)


def test_a_machine_of_ones_own_is_a_part_of_it(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(recipes.machine_file("default").read_text())
    made = matrix(TWO + f'machine = ["{recipe}", "default"]\n', tmp_path)
    mine, usual = cells(made)[:2]
    before = [digest(made, each, "ours") for each in (mine, usual)]
    recipe.write_text(recipe.read_text() + "# another\n")
    after = [digest(made, each, "ours") for each in (mine, usual)]
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.parametrize("name", ["timers/nanosleep.c", "kselftest.h", "../../include/nolibc/nolibc.h"])
def test_the_source_of_kselftests_is_a_part_of_it(tmp_path: Path, name: str) -> None:
    file = tree(tmp_path) / SELFTESTS / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("one")
    text = f'old = "6.1"\nnew = "6.12"\nkselftest = "timers"\nkselftest_tree = "{tmp_path / "tree"}"\n'
    made = matrix(text, tmp_path)
    (before,) = digests(made).values()
    assert list(digests(made).values()) == [before]
    file.write_text("two")
    assert list(digests(made).values()) != [before]


def test_what_a_command_on_the_workstation_reads_is_a_part_of_it(tmp_path: Path) -> None:
    script = tmp_path / "check.py"
    script.write_text("one")
    words = f'"python3", "{script}", "{LONG}"'
    made = matrix(TWO.replace('"true"', words) + 'in = "workstation"\n', tmp_path)
    first = digest(made, cells(made)[0], "ours")
    script.write_text("two")
    assert digest(made, cells(made)[0], "ours") != first


def fake(text: str) -> object:
    """A process that plays a cell: `text` is a program that has the cell's new kernel as its argument."""
    return lambda matrix, cell, folder: [sys.executable, "-c", text, cell.new]


def played(
    made: Matrix, folder: Path, program: str, *, changed: bool = False, inputs: str = "a"
) -> list[str]:
    """The new kernels of the cells that are played."""
    heard: list[Result] = []
    digests = dict.fromkeys(cells(made), inputs)
    run = Run(made, folder, digests, heard.append, fake(program))  # type: ignore[arg-type]
    run.play(to_do(folder, made, digests, changed=changed), 2)
    return [each.cell.new for each in heard]


BAD_12 = "import sys; print('why', file=sys.stderr); sys.exit(3 if sys.argv[1] == '6.12' else 0)"


def test_results_are_kept_and_only_what_changed_is_played_again(tmp_path: Path) -> None:
    made, out = matrix(TWO, tmp_path), tmp_path / "out"
    assert played(made, out, BAD_12) == ["6.1", "6.12"]
    results = [load(out, cell) for cell in cells(made)]
    assert [(each.code, each.word, each.said) for each in results] == [(0, "good", "why"), (3, "bad", "why")]
    assert code_of(results) == 1
    assert played(made, out, BAD_12, changed=True) == []
    assert played(made, out, BAD_12, changed=True, inputs="b") == ["6.1", "6.12"]
    assert played(made, out, BAD_12) == ["6.1", "6.12"]


def test_what_was_not_tested_is_never_done(tmp_path: Path) -> None:
    made, out = matrix(TWO, tmp_path), tmp_path / "out"
    played(made, out, "import sys; sys.exit(125 if sys.argv[1] == '6.12' else 0)")
    assert code_of([load(out, cell) for cell in cells(made)]) == 125
    assert played(made, out, "", changed=True) == ["6.12"]
    # One that a signal ended says nothing, either.
    played(made, out, "import os; os.kill(os.getpid(), 9)")
    assert {load(out, cell).code for cell in cells(made)} == {125}


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = matrix(TWO, tmp_path), tmp_path / "out"
    digests = dict.fromkeys(cells(made), "a")

    def interrupt(result: Result) -> None:
        raise KeyboardInterrupt

    run = Run(made, out, digests, interrupt, fake(""))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        run.play(cells(made), 1)
    assert load(out, cells(made)[0]).code == 0
    left = [cell for cell in cells(made) if load(out, cell).code is None]
    assert to_do(out, made, digests, changed=False) == left
    assert played(made, out, "") == [cell.new for cell in left]
    assert played(made, out, "") == ["6.1", "6.12"]


def test_results_of_a_run_before_are_not_those_of_one_that_was_interrupted(tmp_path: Path) -> None:
    made, out = matrix(TWO, tmp_path), tmp_path / "out"
    assert played(made, out, BAD_12) == ["6.1", "6.12"]

    class Killed(Run):
        """Ends before it has played anything."""

        def _cell(self, cell: Cell) -> Result:
            raise MultirootError("killed")

    digests = dict.fromkeys(cells(made), "a")
    with pytest.raises(MultirootError, match="killed"):
        Killed(made, out, digests, lambda _: None, fake("")).play(cells(made), 1)  # type: ignore[arg-type]
    assert played(made, out, "") == ["6.1", "6.12"]


def test_a_damaged_result_is_none(tmp_path: Path) -> None:
    cell = Cell("6.1", "6.12", "default", "default", "default", "new")
    (tmp_path / cell.name).mkdir()
    for text in ("", "[]", "{}", json.dumps({"code": "x", "digest": "", "seconds": 0, "said": ""})):
        (tmp_path / cell.name / matrices.RESULT).write_text(text)
        assert load(tmp_path, cell).code is None


def test_two_at_a_time_where_there_is_room(tmp_path: Path) -> None:
    made = matrix(TWO, tmp_path)
    assert [at_once(made, cpus) for cpus in (1, 4, 7, 8)] == [1, 1, 1, 2]


class Reader(HTMLParser):
    """Collects links, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value for key, value in attrs if key == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@given(st.text(), st.sampled_from([None, 0, 3, 125]))
def test_a_page_is_whole_whatever_was_said(said: str, code: int | None) -> None:
    made = Matrix.model_validate({"old": ["6.1"], "new": ["<b>", "6.12"], "command": ["<i>"]})
    first = cells(made)[0]
    reader = Reader()
    reader.feed(page(made, [Result(first, code, "", 3.0, said)], frozenset({f"{first.name}/report.json"})))
    assert reader.open == []
    assert reader.links == [f"{first.name}/report.json"]


@given(
    st.lists(st.text(min_size=1), min_size=6, max_size=6),
    st.lists(st.text(min_size=1), min_size=6, max_size=6),
)
def test_cells_have_names_of_their_own(one: list[str], other: list[str]) -> None:
    assert (Cell(*one).name == Cell(*other).name) == (one == other)
    assert "/" not in Cell(*one).name
