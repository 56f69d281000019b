# SPDX-License-Identifier: GPL-2.0-or-later
"""What nobody expected: one line for the person, and a file with all that is needed to mend it."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multiroot import __version__
from multiroot.errors import BadRequestError, BugError, MultirootError

_LIBRARIES = ("click", "grpcio", "protobuf", "pyroute2", "qemu.qmp", "rich")
# What the computer lacks or forbids is no bug of ours.
_OF_THE_COMPUTER = frozenset({
    errno.EACCES, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC,
    errno.EPERM, errno.EROFS,
})  # fmt: skip


def explain(error: Exception, argv: Sequence[str]) -> MultirootError:
    """The error to end with instead of one that nobody expected.

    A lack of space, memory or permission is passed on in the system's words, and so is what is wrong with a
    path in `argv`. Everything else is a bug: its traceback, `argv` and the versions of all parts go to a file
    that only this user can read.
    """
    if isinstance(error, MultirootError):
        return error
    if isinstance(error, MemoryError):
        return MultirootError("out of memory")
    if isinstance(error, OSError) and error.errno:
        said = os.strerror(error.errno) + (f": {error.filename}" if error.filename else "")
        if error.filename and _is_named(str(error.filename), argv):
            return BadRequestError(said)
        if error.errno in _OF_THE_COMPUTER:
            return MultirootError(said)
    path = _write(_record(error, argv))
    hint = f"please report it with {path}" if path else "its traceback could not be kept"
    return BugError(f"this is a bug: {_first_line(error)}", hint)


def _is_named(path: str, argv: Sequence[str]) -> bool:
    """Whether the command line names this path, or a folder that it is in."""
    words = {Path(part) for word in argv[1:] for part in (word, word.partition("=")[2]) if part.strip("/.")}
    return not words.isdisjoint((Path(path), *Path(path).parents))


@contextmanager
def one_line(program: str) -> Iterator[None]:
    """Ends this program with one line on stderr, and an exit code, for whatever is raised in the body."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the last one to hear of it
        ours = explain(error, sys.argv)
        print(f"{program}: {' '.join(str(ours).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(ours.exit_code)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _record(error: Exception, argv: Sequence[str]) -> str:
    """Everything that helps, as text."""
    # Here, because they take long to import and are hardly ever needed.
    import platform
    import traceback

    system = platform.uname()
    facts = (
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%S%z')}",
        f"command: {shlex.join(argv)}",
        f"agent: {os.environ.get('MULTIROOT_AGENT', '(not named)')}",
        f"multiroot {__version__}, Python {platform.python_version()}, {system.system} {system.release}",
        f"libraries: {', '.join(f'{name} {_version(name)}' for name in _LIBRARIES)}",
    )
    return "\n".join(facts) + "\n\n" + "".join(traceback.format_exception(error))


def _version(library: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "(none)"


def _write(text: str) -> Path | None:
    """The new file, in the state folder or, where nothing can be written, among the temporary files."""
    import tempfile

    data = text.encode(errors="backslashreplace")
    name = f"bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns()}.log"
    for find in (_state_folder, tempfile.gettempdir):
        try:
            folder = Path(find())
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(file, "wb") as out:  # noqa: PTH123 - a descriptor
                out.write(data)
        except (OSError, RuntimeError):
            # RuntimeError: this user has no home.
            continue
        return path
    return None


def _state_folder() -> Path:
    """`${XDG_STATE_HOME:-~/.local/state}/multiroot/bugs`."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = given if given.is_absolute() else Path("~/.local/state").expanduser()
    return base / "multiroot" / "bugs"
