# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot kernel`: what a configuration lacks, and what is refused before a build takes time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli.conftest import Run

from multiroot.lab import kernel_config
from multiroot.workbench import kernel_build


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / ".config").write_text(kernel_config.fragment(kernel_config.wishes().feature))
    return tmp_path / ".config"


def test_a_good_configuration(run: Run, good: Path) -> None:
    done = run("kernel", "config", "check", good)
    assert (done.code, done.out) == (0, "nothing is missing\n")
    assert run("kernel", "config", "check", good.parent).code == 0


def test_what_is_missing(run: Run, good: Path) -> None:
    good.write_text(good.read_text().replace("CONFIG_FS_DAX=y", "").replace("CONFIG_KVM=m", "CONFIG_KVM=n"))
    done = run("kernel", "config", "check", good)
    assert done.code == 1
    assert "it does not map the arena" in done.out
    assert done.out.endswith("it cannot be a root: 1 of 2 options that it lacks are needed\n")
    done = run("kernel", "config", "check", good, "--for", "vms", "--json")
    assert done.code == 0
    assert [each["option"] for each in json.loads(done.out)["lacks"]] == ["KVM"]
    assert run("kernel", "config", "check", good, "--for", "vms").out.endswith(
        "1 options are missing for more\n"
    )


def test_what_is_no_configuration(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    for path, says in ((tmp_path / "x", "is no kernel configuration"), (tmp_path, ".config: No such file")):
        done = run("kernel", "config", "check", path)
        assert (done.code, done.out) == (2, "")
        assert says in done.err
    assert "no feature called 'x'" in run("kernel", "config", "show", "--for", "x").err


def test_options_as_data_and_as_a_fragment(run: Run) -> None:
    assert json.loads(run("kernel", "config", "show", "--json").out)["root"]["needed"] is True
    assert "CONFIG_FS_DAX=y\n" in run("kernel", "config", "fragment", "--for", "arena").out
    assert "# CONFIG_SOUND is not set\n" in run("kernel", "config", "fragment", "--small").out
    assert "without it" in run("kernel", "config", "show").out


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_build, "check_tools", lambda: None)


@pytest.mark.usefixtures("tools")
def test_what_is_no_source(run: Run, tmp_path: Path) -> None:
    done = run("kernel", "build", tmp_path)
    assert (done.code, "is no source tree of a kernel (name the folder" in done.err) == (2, True)
    for name in ("Kconfig", "Makefile", ".config"):
        (tmp_path / name).touch()
    done = run("kernel", "build", tmp_path)
    assert (done.code, "was built in place" in done.err) == (2, True)
    done = run("kernel", "build", tmp_path, "--merge", tmp_path / "none")
    assert (done.code, "there is no file" in done.err) == (2, True)


def test_what_a_build_needs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    done = run("kernel", "build", "linux-source-6.12")
    assert done.code == 2
    assert "to build a kernel takes " in done.err
    assert "apt-get install" in done.err


def test_the_first_complaint_of_a_compiler(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("CC a.o\nmm/a.c:1:2: error: 'x' undeclared\nmake[3]: *** [mm/a.o] Error 1\n")
    assert kernel_build.first_complaint(log, "no") == "mm/a.c:1:2: error: 'x' undeclared"
    log.write_text("fine\n")
    assert kernel_build.first_complaint(log, "otherwise") == "otherwise"


def test_a_program_that_is_not_there_is_the_first_complaint(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("  CC  a.o\n/bin/sh: 1: pahole: not found\nmake[4]: *** [Makefile:64: a.ko] Error 127\n")
    assert kernel_build.first_complaint(log, "no") == "/bin/sh: 1: pahole: not found"
    log.write_text("bash: line 1: pahole: command not found\nmake: *** [Makefile:1: a] Error 127\n")
    assert kernel_build.first_complaint(log, "no") == "bash: line 1: pahole: command not found"
    # One that can be done without is none.
    log.write_text("/bin/sh: 1: pahole: not found\nmake: *** [Makefile:1: a] Error 1\n")
    assert kernel_build.first_complaint(log, "no") == "make: *** [Makefile:1: a] Error 1"
