# SPDX-License-Identifier: GPL-2.0-or-later
"""Running programs: what comes back, how each kind of failure reads, and what debugging shows."""

from __future__ import annotations

import ast
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import multiroot
from multiroot import proc, processes
from multiroot.errors import CommandError

PACKAGE = Path(multiroot.__file__).parent

# Calls that start another process, by module.
STARTERS = {
    "subprocess": ("run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"),
    "asyncio": ("create_subprocess_exec", "create_subprocess_shell"),
    "os": ("system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"),
    "pty": ("spawn", "fork"),
}

# Where processes may be started without proc.py, and why.
ALLOWED = {
    "audit/probe.py": "its text is run alone by a root's python3, and nobody debugs it from here",
    "bench/in_root/probe.py": "forks itself, in a root, to serve in the background; no program is run",
}


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """The tests that follow show no commands."""
    log = logging.getLogger(proc.__name__)
    before = log.level, log.propagate, log.handlers
    yield
    log.setLevel(before[0])
    log.propagate, log.handlers = before[1:]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_can_be_given_bytes() -> None:
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
    assert proc.convert(python(code), b"\xff\0a", 60) == b"a\0\xff"
    with pytest.raises(CommandError, match="exited with 3: why"):
        proc.convert(python("import sys; print('why', file=sys.stderr); sys.exit(3)"), b"", 60)
    with pytest.raises(CommandError, match=r"did not finish within 0\.1 s"):
        proc.convert(python("import time; time.sleep(60)"), b"", 0.1)


def test_a_program_that_is_attended_has_our_streams(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print(os.environ['X']); sys.exit(3)"
    assert proc.attend(python(code), {"X": "from us"}) == 3
    assert capfd.readouterr().out == "from us\n"
    assert proc.attend(python("import os; os.kill(os.getpid(), 9)"), {}) == -9
    with pytest.raises(CommandError) as caught:
        proc.attend(["no-such-program-anywhere"], {})
    assert caught.value.returncode == 127


def test_run_keeps_streams_and_code_apart() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = proc.run(python(code), check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    assert done.argv == tuple(python(code))


def test_run_gives_no_input_and_replaces_what_is_no_text() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"typed")
    os.close(theirs)
    before = os.dup(0)
    os.dup2(ours, 0)
    try:
        code = "import sys; sys.stdout.buffer.write(repr(sys.stdin.read()).encode() + b'\\xff')"
        assert proc.run(python(code)).stdout == "''\ufffd"
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(ours)


# A program like make, which has another one at work; that one says its number, and ends at SIGTERM only if
# it is `mild`.
_MAKE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_DFL if sys.argv[1] == "mild" else signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[2] + ".new", "w") as file: file.write(str(child.pid))
import os; os.rename(sys.argv[2] + ".new", sys.argv[2])
child.wait()
"""


@pytest.mark.parametrize("manner", ["mild", "stubborn"])
def test_what_a_program_has_started_ends_with_the_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    monkeypatch.setattr(proc, "_END_S", 0.2)
    told = tmp_path / "child"

    def interrupted(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def interrupt() -> None:
        while not told.exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, interrupted)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            proc.run([*python(_MAKE), manner, told])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    assert processes.wait_end(int(told.read_text()), 10)


def test_environment_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    code = "import os; print(os.environ['OURS'], os.environ['ADDED'], os.getcwd())"
    assert proc.run(python(code), env={"ADDED": "2"}, cwd=tmp_path).stdout == f"1 2 {tmp_path}\n"


def test_failure_quotes_the_last_lines() -> None:
    code = "import sys; print('a\\nb\\nc\\nd e', file=sys.stderr); sys.exit(4)"
    with pytest.raises(CommandError) as caught:
        proc.run(python(code))
    error = caught.value
    assert error.message == f"{Path(sys.executable).name} exited with 4: b | c | d e"
    assert error.hint == "command: " + shlex.join(python(code))
    assert (error.returncode, error.stderr) == (4, "a\nb\nc\nd e\n")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with 0"),
        (3, "exited with 3"),
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-34, "was killed by SIGRTMIN"),
        (-40, "was killed by signal 40"),
    ],
)
def test_an_exit_code_in_words(code: int, words: str) -> None:
    assert proc.how_ended(code) == words
    assert proc.how_ended_in_shell(code if code >= 0 else 128 - code) == words


def test_a_program_that_a_signal_killed_says_which() -> None:
    with pytest.raises(CommandError, match="was killed by SIGTERM: no output") as caught:
        proc.run(python("import os; os.kill(os.getpid(), 15)"))
    assert caught.value.returncode == -15


def test_log_is_appended_to_and_quoted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    done = proc.run(python("import sys; print('out', flush=True); print('err', file=sys.stderr)"), log=log)
    assert (done.stdout, done.stderr) == ("", "")
    assert log.read_text() == "before\nout\nerr\n"
    with pytest.raises(CommandError) as caught:
        proc.run(python("import sys; sys.exit('broken')"), log=log)
    assert "exited with 1: out | err | broken" in caught.value.message
    assert caught.value.hint.endswith(f"; log: {log}")


@pytest.mark.parametrize("spawn", [False, True])
def test_programs_that_cannot_be_started(tmp_path: Path, spawn: bool) -> None:
    def start(program: Path, cwd: Path | None = None) -> CommandError:
        attempt = partial(proc.spawn, log=tmp_path / "log") if spawn else proc.run
        with pytest.raises(CommandError) as caught:
            attempt([program], cwd=cwd)
        return caught.value

    absent = start(tmp_path / "absent")
    assert (absent.message, absent.hint, absent.returncode) == (
        f"cannot run {tmp_path}/absent: No such file or directory",
        "is it installed?",
        127,
    )
    (tmp_path / "text").write_text("no program")
    assert (start(tmp_path / "text").returncode, start(tmp_path / "text").hint) == (126, "")
    nowhere = start(Path("/bin/true"), cwd=tmp_path / "nowhere")
    assert nowhere.message == f"cannot run /bin/true in {tmp_path}/nowhere: No such file or directory"


def test_timeout_ends_the_program(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os, signal; open({str(file)!r}, 'w').write(str(os.getpid())); signal.pause()"
    with pytest.raises(CommandError, match=r"did not finish within 2 s"):
        proc.run(python(code), timeout=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_spawn_leaves_the_program_running(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    code = f"import os; print('out', os.getsid(0) == os.getpid(), flush=True); print(os.read({ours}, 9))"
    child = proc.spawn(python(code), log=tmp_path / "log", pass_fds=[ours])
    assert child.poll() is None
    os.write(theirs, b"go on")
    assert child.wait(30) == 0
    assert (tmp_path / "log").read_text() == "out True\nb'go on'\n"
    os.close(ours)
    os.close(theirs)


def test_find_looks_into_sbin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "own").write_text("#!/bin/sh\n")
    (tmp_path / "own").chmod(0o755)
    assert proc.find("own") == str(tmp_path / "own")
    assert proc.find("ldconfig") in ("/usr/sbin/ldconfig", "/sbin/ldconfig")
    assert proc.find("no-such-program") is None


@pytest.mark.usefixtures("logging_restored")
def test_shown_commands_can_be_pasted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A shell given the line that was shown does the same again."""
    proc.show_commands()
    folder, log = tmp_path / "a folder", tmp_path / "a log"
    folder.mkdir()
    code = "import os, sys; print(os.getcwd(), os.environ['WORDS'], sys.argv[1:])"
    proc.run([*python(code), "x y", "$HOME", "it's"], cwd=folder, env={"WORDS": "two words"}, log=log)
    once = log.read_text()
    assert once == f"{folder} two words ['x y', '$HOME', \"it's\"]\n"
    line, comment = capfd.readouterr().err.splitlines()
    subprocess.run(["sh", "-c", line], check=True, cwd="/")
    assert log.read_text() == 2 * once
    assert comment.startswith(f"# {sys.executable}: exited with 0 after ")
    assert subprocess.run(["sh", "-c", comment], check=True, capture_output=True).stdout == b""


@pytest.mark.usefixtures("logging_restored")
def test_ends_are_shown_and_not_logged_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    proc.show_commands()
    proc.run(["false"], check=False)
    with pytest.raises(CommandError):
        proc.run(["no-such-program"])
    with pytest.raises(CommandError):
        proc.run(["sleep", "60"], timeout=0.01)
    child = proc.spawn(["cat"], log=tmp_path / "log", pass_fds=[0])
    child.wait(30)
    lines = capfd.readouterr().err.splitlines()
    assert lines[::2] == ["false", "no-such-program", "sleep 60", f"cat >>{tmp_path}/log 2>&1"]
    assert lines[1].startswith("# false: exited with 1 after ")
    assert lines[3] == "# no-such-program: not started: No such file or directory"
    assert lines[5].startswith("# sleep: killed after ")
    assert lines[7] == f"# cat: started as process {child.pid}, inherits descriptors 0"
    assert caplog.records == []


def test_nothing_is_shown_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    proc.run(["true"])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("value", "wanted"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_debug_variable(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(proc.DEBUG_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(proc.DEBUG_VARIABLE, value)
    assert proc.debug_wanted() is wanted


def starts_processes(source: str) -> bool:
    """Whether this Python text calls, or imports by name, one of STARTERS; exec and spawn of os as well."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)):
                names = [name]
            case ast.ImportFrom(module=str(module)):
                names = [alias.name for alias in node.names]
            case _:
                continue
        if any(
            n in STARTERS.get(module, ()) or (module == "os" and n[:4] in ("exec", "spaw")) for n in names
        ):
            return True
    return False


def test_nobody_else_starts_processes() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "proc.py" and starts_processes(path.read_text())
    }
    assert found - set(ALLOWED) == set()
    assert starts_processes((PACKAGE / "proc.py").read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f():\n    os.execv('/bin/true', [])",
        "from subprocess import Popen",
        "import asyncio\nasync def f():\n    await asyncio.create_subprocess_exec('true')",
    ],
)
def test_starting_processes_is_noticed(source: str) -> None:
    assert starts_processes(source)


def test_a_hint_says_how_to_get_a_program_that_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "qemu-nbd --list; no qemu-nbd? apt-get install qemu-utils"
    assert proc.hinted("qemu-nbd --list") == told
    monkeypatch.setattr(proc, "find", lambda program: None)
    assert proc.hinted("qemu-nbd --list", here=True) == told
    monkeypatch.setattr(proc, "find", lambda program: f"/usr/bin/{program}")
    assert proc.hinted("qemu-nbd --list", here=True) == "qemu-nbd --list"
