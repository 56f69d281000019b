# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the lab keeps things: the user's cache and state folders, also when started through sudo."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import BadRequestError


@dataclass(frozen=True)
class User:
    """Who asked: under sudo the user behind it, whose folders we use and who should own what we leave
    there.
    """

    uid: int
    gid: int
    home: Path


def invoking_user() -> User:
    """The user behind sudo, else ourselves. Raises BadRequestError for one that nobody here knows."""
    who = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    try:
        uid = int(who or os.geteuid())
        entry = pwd.getpwuid(uid)
    except (KeyError, ValueError, OverflowError) as error:
        hint = "unset SUDO_UID" if who else "add it to /etc/passwd"
        raise BadRequestError(f"no user with the number {who or os.geteuid()}", hint) from error
    # HOME beats the password file, but sudo sets it to root's.
    home = os.environ.get("HOME") if uid == os.geteuid() else None
    return User(entry.pw_uid, entry.pw_gid, Path(home or entry.pw_dir))


def make_dir(path: Path) -> Path:
    """Create `path` and its parents, each owned by the invoking user; BadRequestError where none can be."""
    if not path.is_dir():
        make_dir(path.parent)
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise BadRequestError(
                f"cannot make the folder {path}: {error.strerror}", "see HOME and the XDG_... variables: env"
            ) from error
        give_to_user(path)
    return path


def give_to_user(path: Path) -> None:
    """Under sudo, hand `path` itself to the user behind it."""
    user = invoking_user()
    if os.geteuid() == 0 and user.uid != 0:
        os.lchown(path, user.uid, user.gid)


def cache_path() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/multiroot` of the invoking user, there or not."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def cache_dir() -> Path:
    """`cache_path`, made when it is not there."""
    return make_dir(cache_path())


def data_dir() -> Path:
    """`${XDG_DATA_HOME:-~/.local/share}/multiroot` of the invoking user."""
    return make_dir(_xdg("XDG_DATA_HOME", ".local/share"))


def state_path() -> Path:
    """`${XDG_STATE_HOME:-~/.local/state}/multiroot` of the invoking user, there or not."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def state_dir() -> Path:
    """`state_path`, made when it is not there."""
    return make_dir(state_path())


def source_dir() -> Path:
    """The project's tree (lab recipes, C sources); raises BadRequestError when installed without it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "qemu-lab").is_dir():
        raise BadRequestError(
            "the lab needs the source tree", "use a clone and 'make setup', not an installed package"
        )
    return root


def recipes_dir() -> Path:
    return source_dir() / "qemu-lab"


def _xdg(variable: str, fallback: str) -> Path:
    # Relative ones are to be ignored, says the XDG Base Directory Specification.
    base = Path(os.environ.get(variable, ""))
    return (base if base.is_absolute() else invoking_user().home / fallback) / "multiroot"
