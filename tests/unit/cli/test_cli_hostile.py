# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option of every command, given anything: one line, an exit code that is documented, no traceback."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.cli import reference
from multiroot.cli.program import cli, main
from multiroot.device import handle
from multiroot.errors import ConflictError
from multiroot.lab import build
from multiroot.lab.cache import Cache
from multiroot.launch import record
from multiroot.workbench import kernel_build

# Those that do their work here and now, whatever is said: checks, endless output, a page that is served until
# somebody ends it.
LEFT_OUT = {
    ("multiroot", "bench", "imports"),
    ("multiroot", "completion"),
    ("multiroot", "doctor"),
    ("multiroot", "lab", "doctor"),
    ("multiroot", "lab", "ui"),
}
COMMANDS = [
    (path, command)
    for path, command in reference.walk(cli, ("multiroot",))
    if path not in LEFT_OUT and (not isinstance(command, click.Group) or command.invoke_without_command)
]
CODES = {0, 1, 2, 3, 4, 5}
UNTESTED = 125  # of `multiroot try`, whatever the reason

# fmt: off
NASTY = (
    "", " ", "0", "-1", "00", "010M", "3T", "0x", "1e9", "nan", "inf", "-inf", "1_0", "\u0663", "9" * 30,
    "9" * 5000, "4294967296", "2147483648", "18446744073709551616", "16777215T", "128M,", ",", "a,b", "1-",
    "3-2", "0-9999999", "old", "new", "65536", "/", "/dev/null", "/nonexistent", "..", "a/b", "a\nb",
    "a\x1b[2J", "\ufffd", "\udcff", "%s", "{}", "--", "-", "'", '"', "q35,", "q35,=", "microvm,x=y",
    "1.2.3.4/33", "::1/8", "1.2.3.4", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00", "01:00.0", "0000:ff:1f.7",
    "1G@", "@1G", "1G@1G@1G", "1G@0x1", "x" * 300, "6.12", "newest", "\xe9" * 70, "default",
    "default.toml", "bench", "handover", "retire",
)
# fmt: on


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workstation with nothing on it: no lab, no agent, no module, and nothing is built."""
    folder = tmp_path_factory.mktemp("w")
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("MULTIROOT_AGENT", f"unix:{folder}/nobody")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(handle, "DEVICE", folder / "no-device")
    monkeypatch.setattr(build, "build", refuse)
    monkeypatch.setattr(Cache, "ensure", refuse)
    monkeypatch.setattr(kernel_build, "source_tree", refuse)
    monkeypatch.setattr(record, "RECORD", folder / "no-record")
    return folder


def refuse(*_: Any) -> None:
    raise ConflictError("nothing is built in this test")


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, ...]:
    """A command with some of its options and arguments, each given anything."""
    path, command = draw(st.sampled_from(COMMANDS))
    anything = st.sampled_from(NASTY) | st.text(max_size=8).map(lambda text: text.replace("\0", ""))
    words = list(path[1:])
    for param in command.params:
        if isinstance(param, click.Option):
            if draw(st.booleans()):
                words.append(param.opts[0])
                words += [] if param.is_flag else [draw(anything)]
        elif param.required or draw(st.booleans()):
            words.append(draw(anything))
    return tuple(words)


def said(words: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    before, sys.argv = sys.argv, ["multiroot", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return ended.value.code, err.getvalue()  # type: ignore[return-value]


@settings(max_examples=80, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines())
def test_whatever_is_typed_is_understood_or_refused_in_one_line(words: tuple[str, ...]) -> None:
    code, err = said(words)
    assert code in CODES | ({UNTESTED} if words[:1] == ("try",) else set()), err
    assert "Traceback" not in err
