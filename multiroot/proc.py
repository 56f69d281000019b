# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that runs other programs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import CommandError

Arg = str | os.PathLike[str]


@dataclass(frozen=True)
class Completed:
    """What a program left behind; `stdout` and `stderr` are text (undecodable bytes replaced)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def quote(argv: Sequence[Arg]) -> str:
    """The command line as a person could paste it into a shell."""
    return shlex.join(os.fspath(arg) for arg in argv)


def find(program: str) -> str | None:
    """Path of `program`, looking into the sbin folders too (absent from PATH for ordinary users)."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=path)


def run(
    argv: Sequence[Arg],
    *,
    check: bool = True,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    log: Path | None = None,
) -> Completed:
    """Run a program to its end.

    `env` is added to ours. With `log`, both outputs are appended to that file and the result's are empty.
    Raises CommandError (with the last lines of stderr or of the log) when the program is missing, exceeds
    `timeout` seconds or, with `check`, exits with anything but 0.
    """
    words = tuple(os.fspath(arg) for arg in argv)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    sink = log.open("ab") if log else subprocess.PIPE
    try:
        done = subprocess.run(
            words,
            check=False,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=sink,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise CommandError(
            f"cannot run {words[0]}: {error.strerror}", "is it installed?", returncode=127
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{words[0]} did not finish within {timeout:g} s", quote(words)) from error
    finally:
        if log and not isinstance(sink, int):
            sink.close()
    result = Completed(words, done.returncode, _text(done.stdout), _text(done.stderr))
    if check and done.returncode:
        tail = _tail(log.read_text(errors="replace") if log else result.stderr or result.stdout)
        raise CommandError(
            f"{Path(words[0]).name} exited with {done.returncode}: {tail or 'no output'}",
            f"command: {quote(words)}" + (f"; log: {log}" if log else ""),
            returncode=done.returncode,
            stderr=result.stderr,
        )
    return result


def spawn(
    argv: Sequence[Arg],
    *,
    log: Path,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    new_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a program that lives on by itself, its output going to `log`; the caller owns the handle."""
    words = [os.fspath(arg) for arg in argv]
    with log.open("ab") as sink:
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(pass_fds),
                cwd=cwd,
                start_new_session=new_session,
            )
        except FileNotFoundError as error:
            raise CommandError(
                f"cannot run {words[0]}: {error.strerror}", "is it installed?", returncode=127
            ) from error


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")


def _tail(text: str, lines: int = 3) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-lines:])
