# SPDX-License-Identifier: GPL-2.0-or-later
"""A stopped VM is changed in an editor, as a user does it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from vm.cli_agent import REPO, Run

from multiroot.units import MIB


@pytest.fixture
def arena_size() -> int:
    """With room for as much memory as VMs have untold."""
    return 512 * MIB


async def test_an_edit_without_options_wants_a_terminal_or_an_editor(
    multiroot: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("EDITOR", "VISUAL"):
        monkeypatch.delenv(variable, raising=False)
    assert (await multiroot("vm", "define", "web")).code == 0
    refused = await multiroot("vm", "edit", "web")
    assert (refused.code, "there is no terminal for an editor" in refused.err) == (2, True)


async def edit(tmp_path: Path, program: str, answers: bytes | None = None) -> tuple[int | None, str]:
    """Exit code and stderr of an edit in that editor, by a person who types these answers on a terminal; None
    for no terminal.
    """
    (tmp_path / "drafts").mkdir(exist_ok=True)
    with ExitStack() as stack:
        ours, theirs = pty.openpty()
        stack.callback(os.close, ours)
        stack.callback(os.close, theirs)
        stream = asyncio.subprocess.DEVNULL if answers is None else theirs
        editing = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "multiroot.cli.main", "vm", "edit", "web",
            stdin=stream, stdout=stream, stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "MULTIROOT_AGENT": f"unix:{tmp_path}/agent",
                "PYTHONPATH": str(REPO),
                "EDITOR": program,
                "TMPDIR": str(tmp_path / "drafts"),
            },
        )  # fmt: skip
        os.write(ours, answers or b"")
        _, err = await editing.communicate()
    return editing.returncode, err.decode()


def kept(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in (tmp_path / "drafts").iterdir()]


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        ("sed -i 's/^cpus = 1/cpus = 2/'", 0, ""),
        ("true", 0, ""),
        ("truncate --size=0", 0, ""),
        ("false", 1, "false"),
        (
            "/nope",
            2,
            "multiroot: the editor /nope cannot be started: No such file or directory "
            "(choose another: EDITOR=nano multiroot vm edit web)\n",
        ),
    ],
)
async def test_a_stopped_vm_is_changed_in_an_editor(
    multiroot: Run, tmp_path: Path, program: str, code: int, says: str
) -> None:
    """As a person does it, on a terminal."""
    await multiroot("vm", "define", "web")
    before = json.loads((await multiroot("vm", "show", "web", "--json")).out)
    ended, err = await edit(tmp_path, program, b"")
    after = json.loads((await multiroot("vm", "show", "web", "--json")).out)
    assert (ended, len(err.splitlines())) == (code, int(code > 0)), err
    assert says in err
    assert after == ({**before, "cpus": 2} if program.startswith("sed") else before)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("answers", [b"n\n", None])
@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("sed -i 's/^cpus = .*/cpus = many/'", "not valid TOML: Invalid value in line 3: 'cpus = many'"),
        ("sed -i 's/^cpus = .*/cpus = 0/'", "a VM cannot have 0 CPUs"),
        ("sed -i 's/^firmware/firmwear/'", "firmwear: no such key"),
        ("sed -i 's/^kernel = .*/kernel = \"none\"/'", "cannot read none"),
    ],
)
async def test_what_was_written_is_not_lost(
    multiroot: Run, tmp_path: Path, program: str, says: str, answers: bytes | None
) -> None:
    """By whoever refuses it: the file's reader, the command, the agent."""
    await multiroot("vm", "define", "web")
    before = json.loads((await multiroot("vm", "show", "web", "--json")).out)
    code, err = await edit(tmp_path, program, answers)
    assert (code, says in err) == (2, True), err
    (path,) = (tmp_path / "drafts").iterdir()
    again = f"multiroot vm edit web --file {path}"
    assert f"your text is kept; once it is mended there: {again})" in err.splitlines()[-1]
    assert json.loads((await multiroot("vm", "show", "web", "--json")).out) == before
    refused = await multiroot(*again.split()[1:])
    assert (refused.code, says in refused.err) == (2, True)


async def test_what_was_written_can_be_edited_again(multiroot: Run, tmp_path: Path) -> None:
    """First it is no number, then a wrong one, then a good one."""
    program = tmp_path / "editor"
    program.write_text("#!/bin/sh\nsed -i 's/^cpus = 0/cpus = 2/; s/^cpus = [1m].*/cpus = 0/' $1\n")
    program.chmod(0o755)
    await multiroot("vm", "define", "web")
    code, err = await edit(tmp_path, str(program), b"y\n")
    assert (code, err.count("a VM cannot have 0 CPUs"), kept(tmp_path)) == (0, 1, []), err
    assert json.loads((await multiroot("vm", "show", "web", "--json")).out)["cpus"] == 2


async def test_an_edit_that_is_left_keeps_what_was_written(multiroot: Run, tmp_path: Path) -> None:
    """By the end of the terminal's input, and by an editor that fails."""
    await multiroot("vm", "define", "web")
    code, err = await edit(tmp_path, "sed -i 's/^cpus = .*/cpus = 0/'", b"\x04")
    assert (code, "your text is kept" in err.splitlines()[-1], len(kept(tmp_path))) == (130, True, 1), err
    program = tmp_path / "editor"
    program.write_text("#!/bin/sh\necho mine >$1\nexit 3\n")
    program.chmod(0o755)
    code, err = await edit(tmp_path, str(program))
    assert (code, "your text is kept" in err, "mine\n" in kept(tmp_path)) == (1, True, True), err
    assert "choose another: EDITOR=nano multiroot vm edit web" in err
