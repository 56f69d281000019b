# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot try` with real kernels: proves that a person's command runs where they want it, that its input,
output and exit code are the command's own, and that what the kernels say makes it bad.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multiroot.lab import recipes

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
NAME = f"try-{os.getpid()}"


class Try:
    """Runs the command; `report` is what it left of the last run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        own = ["try", "--name", NAME, "--json", str(self.folder / "report.json")]
        return subprocess.run(
            [sys.executable, "-m", "multiroot.cli.main", *own, *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=1400,
            check=False,
        )

    @property
    def report(self) -> Any:
        return json.loads((self.folder / "report.json").read_text())


@pytest.fixture
def trial(tmp_path: Path) -> Try:
    return Try(tmp_path)


def points(report: Any) -> dict[str, str]:
    return {each["claim"]: each["outcome"] for each in report["points"]}


def test_a_command_in_the_new_root_after_the_handover(trial: Try) -> None:
    done = trial("--old", "6.12", "--new", "6.1", "--", "uname", "-r")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6.1.")
    report = trial.report
    assert {each["where"]: each["same"] for each in report["kernels"]} == {"old": True, "new": True}
    assert all(each["ran"]["build_id"] for each in report["kernels"])
    assert points(report)["the guest lost and repeated no tick"] == "held"
    assert done.stderr.endswith("good\n")


def test_input_output_and_exit_code_are_the_commands(trial: Try, tmp_path: Path) -> None:
    script = tmp_path / "test.sh"
    script.write_text('#!/bin/sh\nread -r line\necho "$line in $MULTIROOT_WHERE with $(cat data)"\nexit $1\n')
    script.chmod(0o755)
    (tmp_path / "data").write_text("data")
    words = ("--in", "old", "--carry", tmp_path / "data", "--", script, 7)
    done = trial(*words, stdin="hello\n")
    assert (done.returncode, done.stdout) == (7, "hello in old with data\n"), done.stderr


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("false", 1), ("no-such-program", 125)])
def test_exit_codes(trial: Try, command: str, code: int) -> None:
    assert trial("--in", "old", "--", command).returncode == code


def test_a_warning_is_bad_whatever_the_command_says(trial: Try) -> None:
    warn = "WARNING: CPU: 0 PID: 1 at kernel/frob.c:1 frob+0x1/0x2"
    done = trial("--in", "old", "--ktap", "--", "sh", "-c", f"echo '{warn}' >/dev/kmsg; echo fine")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("# fine\nKTAP version 1\n")
    (finding,) = trial.report["findings"]
    assert (finding["kind"], finding["text"], finding["code"]) == ("warning", warn, "frob+0x1/0x2")
    allow = trial.folder / "allow.toml"
    allow.write_text('[[allow]]\ntext = "frob"\nwhy = "this test says so itself"\n')
    done = trial("--in", "old", "--allow", allow, "--", "sh", "-c", f"echo '{warn}' >/dev/kmsg")
    assert done.returncode == 0, done.stderr


def test_a_command_in_a_guest_that_was_handed_over(trial: Try, tmp_path: Path) -> None:
    script = tmp_path / "here"
    script.write_text("#!/bin/sh\necho $MULTIROOT_WHERE $(hostname); cat; exit 3\n")
    script.chmod(0o755)
    done = trial("--in", "vm", "--", script, stdin="words\n")
    assert (done.returncode, done.stdout) == (3, "vm commands\nwords\n"), done.stderr
    assert points(trial.report)["the guest moves"] == "held"


def test_a_command_on_the_workstation(trial: Try) -> None:
    asks = f"[ $MULTIROOT_LAB = {NAME} ] && {sys.executable} -m multiroot.cli.main root list --json"
    done = trial("--in", "workstation", "--until", "launch", "--", "sh", "-c", asks)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2


def test_a_root_that_panics_ends_it_at_once(trial: Try) -> None:
    """The command would run for longer than this test may."""
    crash = "echo c >/proc/sysrq-trigger; sleep 9999"
    done = trial("--until", "launch", "--", "sh", "-c", crash)
    assert done.returncode == 1, done.stderr
    assert "the new root panicked: Kernel panic - not syncing: sysrq triggered crash" in done.stderr
    assert "panic" in [each["kind"] for each in trial.report["findings"]]


def test_a_guest_that_panics_ends_it_at_once(trial: Try) -> None:
    """The command would run for longer than this test may; the roots live, and are judged."""
    done = trial("--in", "vm", "--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 9999")
    assert done.returncode == 1, done.stderr
    assert "the guest's kernel panicked" in done.stderr
    assert ("panic", "vm1") in [(each["kind"], each["source"]["where"]) for each in trial.report["findings"]]
    assert points(trial.report)["the new root's kernel reports no trouble"] == "held"


def test_the_standard_job_without_a_command(trial: Try) -> None:
    done = trial("--old", "6.1", "--new", "6.12")
    assert done.returncode == 0, done.stderr
    told = points(trial.report)
    for claim in ("the guest moves", "the guest comes back", "the next update does, too"):
        assert told[claim] == "held"
    for root in (
        "the old root",
        "the new root",
        "the root after the update",
        "the root after the next update",
    ):
        assert told[f"{root} ran the kernel that was asked for"] == "held"
        assert f"kmemleak finds nothing in {root}" in told


def test_what_cannot_be_tested(trial: Try, tmp_path: Path) -> None:
    names = ", ".join(each.name for each in recipes.kernels().kernel)
    for words, says in (
        (("--new", "5.4", "--", "true"), f"no kernel called '5.4' (there is {names}"),
        (("--new", tmp_path, "--", "true"), "holds no kernel"),
        (("--", tmp_path), "is a folder"),
    ):
        done = trial(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done.stderr
        assert says in done.stderr


def test_a_machine_that_stands_still_is_noticed(trial: Try) -> None:
    """Nothing is said and nothing ends: only who asks all the time notices."""
    stop = f"""if True:
        import os, signal, time
        from multiroot.lab import state
        os.kill(state.load({NAME!r}).pid, signal.SIGSTOP)
        time.sleep(9999)
    """
    done = trial("--in", "workstation", "--until", "boot", "--", sys.executable, "-c", stop)
    assert done.returncode == 1, done.stderr
    assert "the old root stands still: it has not answered for 20 s" in done.stderr
