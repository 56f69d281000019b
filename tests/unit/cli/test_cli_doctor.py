# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot doctor`, `multiroot lab doctor` and `multiroot completion`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cli.conftest import Run

from multiroot.doctor.checks import Check, failed, ok, warning
from multiroot.doctor.root import RootDoctor
from multiroot.lab.doctor import WorkstationDoctor

Find = Callable[..., tuple[str, ...]]


@pytest.fixture(params=["doctor", "lab doctor"])
def find(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Has one of the two doctors make the given checks; returns the words of its command."""
    command: str = request.param
    doctor = RootDoctor if command == "doctor" else WorkstationDoctor

    def use(*checks: tuple[str, Check]) -> tuple[str, ...]:
        monkeypatch.setattr(doctor, "checks", lambda _: list(checks))
        return tuple(command.split())

    return use


def test_healthy(run: Run, find: Find) -> None:
    words = find(("cpu", lambda: ok("x86-64")), ("tsc", lambda: warning("not invariant", "use another CPU")))
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "cpu ok x86-64 -" in rows
    assert "tsc warning not invariant use another CPU" in rows
    assert json.loads(run(*words, "--json").out) == {
        "healthy": True,
        "checks": [
            {"id": "cpu", "status": "ok", "found": "x86-64", "mend": ""},
            {"id": "tsc", "status": "warning", "found": "not invariant", "mend": "use another CPU"},
        ],
    }


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_failed_check_is_the_exit_code(run: Run, find: Find, options: tuple[str, ...]) -> None:
    words = find(("kvm", lambda: failed("no /dev/kvm", "modprobe kvm_amd")), ("cpu", lambda: ok("x86-64")))
    done = run(*words, *options)
    assert (done.code, done.err) == (1, "")
    assert "modprobe kvm_amd" in done.out
    assert "x86-64" in done.out


def test_who_means_a_labs_root_is_told_how_to_ask_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RootDoctor, "checks", lambda _: [("kvm", lambda: failed("no /dev/kvm", "modprobe"))])
    assert "`multiroot lab exec -- multiroot doctor`" in run("doctor").out.splitlines()[-1]
    assert json.loads(run("doctor", "--json").out)["healthy"] is False


def test_completion(run: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = run("completion", shell)
        assert (done.code, done.err) == (0, "")
        assert "_MULTIROOT_COMPLETE" in done.out
    done = run("completion", "ksh")
    assert (done.code, done.out) == (2, "")
    assert "SHELL: 'ksh' is none of" in done.err
