# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a command is to write is looked at before it does anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli.conftest import Run

RECORDING = Path(__file__).parents[3] / "docs/run.mrlog"
WRITERS = [
    ("demo", "--json"),
    ("demo", "--junit"),
    ("demo", "--record"),
    ("try", "--json"),
    ("try", "--junit"),
    ("lab", "generations", "--json"),
    ("lab", "generations", "--junit"),
    ("lab", "audit", "--junit"),
    ("lab", "soak", "--output"),
    ("lab", "ui", "--replay", str(RECORDING), "--export"),
    ("lab", "ui", "--replay", str(RECORDING), "--picture"),
    ("watch", "--record"),
    ("root", "dump", "new", "--output"),
    ("vm", "image", "seed", "deb", "--output"),
]


def _refused(words: tuple[str, ...]) -> int:
    """Of a trial that could not be made the exit code is 125."""
    return 125 if words[0] == "try" else 2


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_place_that_nothing_can_be_written_to_is_refused_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def begun(*_: object, **__: object) -> None:
        raise AssertionError("a lab is about to boot")

    monkeypatch.setattr("multiroot.lab.lab.prepare", begun)
    for place in (tmp_path / "missing/x", tmp_path):
        result = run(*words, str(place))
        assert result.code == _refused(words), result.err
        assert str(place) in result.err or str(place.parent) in result.err


def test_a_recording_is_not_written_over_by_what_is_made_of_it(run: Run, tmp_path: Path) -> None:
    recording = tmp_path / "run.mrlog"
    shutil.copy(RECORDING, recording)
    (tmp_path / "link.html").symlink_to(recording)
    before = recording.read_bytes()
    for name in ("run.mrlog", "link.html"):
        result = run("lab", "ui", "--replay", str(recording), "--export", str(tmp_path / name))
        assert (result.code, "is the recording itself" in result.err) == (2, True)
    assert recording.read_bytes() == before


@pytest.mark.parametrize("option", ["--export", "--picture"])
def test_what_is_made_of_a_recording_is_a_new_file(run: Run, tmp_path: Path, option: str) -> None:
    kept = tmp_path / "kept.webp"
    kept.write_text("mine")
    result = run("lab", "ui", "--replay", str(RECORDING), option, str(kept))
    assert (result.code, "is there already" in result.err) == (3, True), result.err
    assert kept.read_text() == "mine"


def test_a_page_without_a_place_for_the_table_is_refused_before_faults_run(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    for place in (page, tmp_path):
        result = run("lab", "fault", "run", "garbage", "--page", str(place))
        assert result.code == 2, result.err
    assert page.read_text() == "nothing\n"


def test_a_lab_that_cannot_be_is_no_fault_that_did_not_hold(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- matrix: begin -->\nhere\n<!-- matrix: end -->\n")
    for words in (("--old-kernel", "nosuch"), ("--new-kernel", "nosuch"), ("--machine", "nosuch")):
        result = run("lab", "fault", "run", "garbage", "--page", str(page), *words)
        assert (result.code, "NOT HELD" in result.err) == (2, False), result.err
    assert "here" in page.read_text()
    assert not page.with_suffix(".json").exists()


@pytest.mark.parametrize("words", [("try", "--timeout"), ("try", "--patience"), ("watch", "--speed")])
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_what_is_no_number_is_refused(run: Run, words: tuple[str, ...], number: str) -> None:
    result = run(*words, number)
    assert (result.code, "no such number" in result.err) == (_refused(words), True)


@pytest.mark.parametrize("target", ["127.0.0.1:99999", "foo", ":", "127.0.0.1:0", "unix:", "[::1]:x"])
def test_an_agent_s_address_that_is_none_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv("MULTIROOT_AGENT", target)
    result = run("root", "list")
    assert (result.code, "MULTIROOT_AGENT names no agent" in result.err) == (2, True)


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "XDG_CACHE_HOME"])
def test_a_folder_that_can_not_be_made_is_no_bug(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.delenv("MULTIROOT_AGENT", raising=False)
    for place in (str(file), "/proc"):
        monkeypatch.setenv(variable, place)
        for words in (
            ("lab", "status"),
            ("lab", "ui", "--port", "0"),
            ("vm", "image", "list"),
            ("vm", "list"),
        ):
            if variable == "XDG_CACHE_HOME" and words[0] != "vm":
                continue
            result = run(*words)
            assert "this is a bug" not in result.err, result.err
            assert result.code != 70


def test_who_only_looks_for_labs_makes_no_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MULTIROOT_AGENT", raising=False)
    for words in (("lab", "status"), ("lab", "console"), ("lab", "down")):
        result = run(*words)
        ended = 0 if words[1] == "down" else 2
        assert (result.code, len(result.err.splitlines())) == (ended, int(ended > 0)), result.err
    assert not (tmp_path / "state").exists()


def test_what_an_audit_would_judge_is_data_too_and_its_lab_has_to_be_one(run: Run) -> None:
    rows = json.loads(run("lab", "audit", "--dry-run", "--json").out)
    assert {"id", "name", "owner"} <= rows[0].keys()
    for words in (("--old-kernel", "nosuch"), ("--machine", "nosuch")):
        assert run("lab", "audit", "--dry-run", *words).code == 2
