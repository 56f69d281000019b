# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that runs other programs.

With `show_commands` each of them is shown on stderr, in a form that can be pasted into a shell.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from multiroot.errors import CommandError

Arg = str | os.PathLike[str]

DEBUG_VARIABLE = "MULTIROOT_DEBUG"
# Debian's, of programs that hints name and that a workstation may lack.
_PACKAGES = {
    "fuser": "psmisc",
    "iscsi-ls": "libiscsi-bin",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
}
_END_S = 5.0  # for a program to end by itself after SIGTERM

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completed:
    """The outcome of a program; `stdout` and `stderr` are text (undecodable bytes are replaced)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def debug_wanted() -> bool:
    """Whether the environment asks for `show_commands`: MULTIROOT_DEBUG is set to anything but 0."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def show_commands() -> None:
    """From now on, write every command to stderr when it starts, and its exit code when it ends.

    The command is a line of its own, without a time or a name in front, so that it can be pasted. What
    else there is to say about it follows as a shell comment.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.handlers = [handler]
    _log.propagate = False
    _log.setLevel(logging.DEBUG)


def shows_commands() -> bool:
    """Whether somebody wants to see everything."""
    return _log.isEnabledFor(logging.DEBUG)


def quote(argv: Sequence[Arg]) -> str:
    """The command line as a person could paste it into a shell."""
    return shlex.join(os.fspath(arg) for arg in argv)


def shell_line(
    argv: Sequence[Arg],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """The whole command for a shell: `quote`, the folder it runs in, what is added to the environment, and
    the file that gets its output.
    """
    assignments = "".join(f"{name}={shlex.quote(value)} " for name, value in (env or {}).items())
    output = f" >>{shlex.quote(os.fspath(log.absolute()))} 2>&1" if log else ""
    line = assignments + quote(argv) + output
    return f"(cd {shlex.quote(os.fspath(cwd))} && {line})" if cwd else line


def hinted(command: str, *, here: bool = False) -> str:
    """A command for a hint, and where its program is to be had if it is missing; `here`: on this computer."""
    program = command.split()[0]
    if here and find(program):
        return command
    return f"{command}; no {program}? apt-get install {_PACKAGES[program]}"


def find(program: str) -> str | None:
    """Path of `program`. The sbin folders are searched too, which ordinary users do not have in PATH."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=path)


def how_ended(code: int) -> str:
    """How a program ended, by its exit code; a negative one names the signal that killed it."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def how_ended_in_shell(code: int) -> str:
    """The same for an exit code as shells give it, 128 and the signal's number; 255 is an exit(-1)."""
    return how_ended(128 - code if 128 < code < 128 + signal.NSIG else code)


def run(
    argv: Sequence[Arg],
    *,
    check: bool = True,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a program and wait for its end; it reads nothing from stdin, and inherits `pass_fds`.

    `env` is added to our environment. With `log`, both outputs are appended to that file and those of the
    result are empty. Raises CommandError when the program cannot be started, when it runs for longer than
    `timeout` seconds and, with `check`, when it exits with anything but 0; the error quotes the last lines
    of stderr or of the log. When waiting ends early, for that or because we are interrupted, all that the
    program has started is ended with it, unless that made itself a process group of its own.
    """
    words = tuple(os.fspath(arg) for arg in argv)
    _log.debug("%s", shell_line(words, cwd=cwd, env=env, log=log))
    began = time.monotonic()
    sink = log.open("ab") if log else subprocess.PIPE
    try:
        with _starting(words, cwd):
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **env} if env else None,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                pass_fds=tuple(pass_fds),
                process_group=0,
            )
        with process, _with_its_children(process):
            stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _log.debug("# %s: killed after %.3f s", words[0], time.monotonic() - began)
        raise CommandError(f"{words[0]} did not finish within {timeout:g} s", quote(words)) from error
    finally:
        if log and not isinstance(sink, int):
            sink.close()
    code = process.returncode
    _log.debug("# %s: %s after %.3f s", words[0], how_ended(code), time.monotonic() - began)
    result = Completed(words, code, _text(stdout), _text(stderr))
    if check and code:
        tail = _tail(log.read_text(errors="replace") if log else result.stderr or result.stdout)
        raise CommandError(
            f"{Path(words[0]).name} {how_ended(code)}: {tail or 'no output'}",
            f"command: {quote(words)}" + (f"; log: {log}" if log else ""),
            returncode=code,
            stderr=result.stderr,
        )
    return result


def spawn(
    argv: Sequence[Arg],
    *,
    log: Path,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    new_session: bool = True,
    piped: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program and return at once. It appends its output to `log` and inherits `pass_fds`. With
    `piped` only its stderr goes there, and its stdout is the caller's to read.

    It goes on when we end; the caller owns the handle. `env` is added to our environment. Raises CommandError
    when it cannot be started.
    """
    words = [os.fspath(arg) for arg in argv]
    _log.debug("%s", shell_line(words, cwd=cwd, env=env, log=log))
    with log.open("ab") as sink, _starting(words, cwd):
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else sink,
            stderr=sink if piped else subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            start_new_session=new_session,
        )
    inherited = f", inherits descriptors {', '.join(map(str, pass_fds))}" if pass_fds else ""
    _log.debug("# %s: started as process %d%s", words[0], child.pid, inherited)
    return child


def convert(argv: Sequence[Arg], data: bytes, timeout: float) -> bytes:
    """What a program makes of `data`: its stdout. Raises CommandError as `run` does."""
    words = [os.fspath(arg) for arg in argv]
    _log.debug("%s", shell_line(words))
    try:
        with _starting(words, None):
            done = subprocess.run(words, input=data, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{words[0]} did not finish within {timeout:g} s", quote(words)) from error
    if done.returncode:
        raise CommandError(
            f"{Path(words[0]).name} {how_ended(done.returncode)}: {_tail(_text(done.stderr))}",
            f"command: {quote(words)}",
            returncode=done.returncode,
        )
    return done.stdout


def attend(argv: Sequence[Arg], env: Mapping[str, str]) -> int:
    """Run a program with our own streams to its end; its exit code, negative for a signal. It is killed if
    waiting is interrupted. `env` is added to our environment. Raises CommandError when it cannot be started.
    """
    words = [os.fspath(arg) for arg in argv]
    _log.debug("%s", shell_line(words, env=env))
    with _starting(words, None):
        process = subprocess.Popen(words, env={**os.environ, **env})
    with process:
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise


def become(argv: Sequence[Arg]) -> NoReturn:
    """Go on as that program, with its exit code. Raises CommandError if it cannot be started."""
    words = [os.fspath(arg) for arg in argv]
    _log.debug("%s", shell_line(words))
    sys.stdout.flush()
    with _starting(words, None):
        os.execvp(words[0], words)


@contextmanager
def _starting(words: Sequence[str], cwd: Path | None) -> Iterator[None]:
    """Turns a failure to start the program into a CommandError with the exit code that a shell would give."""
    try:
        yield
    except OSError as error:
        _log.debug("# %s: not started: %s", words[0], error.strerror)
        code = 127 if isinstance(error, FileNotFoundError) else 126
        if cwd and str(error.filename) == str(cwd):
            raise CommandError(
                f"cannot run {words[0]} in {cwd}: {error.strerror}", returncode=code
            ) from error
        hint = "is it installed?" if code == 127 else ""
        raise CommandError(f"cannot run {words[0]}: {error.strerror}", hint, returncode=code) from error


@contextmanager
def _with_its_children(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the program and what it has started if the body is left by an exception: make leaves a compiler
    for each CPU. SIGTERM first, so that they remove what is half done.
    """
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        # While one of them lives, nobody else can have the number of the group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")


def _tail(text: str, lines: int = 3) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-lines:])
