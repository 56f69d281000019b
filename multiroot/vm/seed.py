# SPDX-License-Identifier: GPL-2.0-or-later
"""What cloud-init in a guest is told: a VM's user-data as a NoCloud seed, a small disk labelled CIDATA.

Each root makes the disk of the definition, and all make the same. The seed's format: cloud-init's
documentation, "NoCloud".
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from multiroot.errors import BadRequestError, found_in
from multiroot.rpc.border import USER_DATA_MOST, is_text
from multiroot.toml_files import decoded, line_of
from multiroot.units import format_size
from multiroot.vm import fat

LABEL = "CIDATA"
CLOUD_CONFIG = "#cloud-config"
# How user-data begins (cloud-init: cloudinit/handlers/__init__.py); only the first of these is YAML.
BEGINNINGS = (
    CLOUD_CONFIG,
    "#!",
    "#include",
    "#cloud-boothook",
    "## template:",
    "Content-Type:",
    "MIME-Version:",
)


def check_beginning(text: str) -> None:
    """Raises BadRequestError for user-data of which cloud-init would not know what it is."""
    if not text.startswith(BEGINNINGS):
        hint = f"its first line is {CLOUD_CONFIG}, or #! and the path of a program"
        raise BadRequestError("user-data does not say what it is", hint)


def check_length(size: int) -> None:
    """Raises BadRequestError for user-data of so many bytes."""
    if size > USER_DATA_MOST:
        raise BadRequestError(f"user-data is longer than {format_size(USER_DATA_MOST)}")


def check_user_data(text: str) -> None:
    """Raises BadRequestError unless a definition may hold it. Whether it is YAML is not looked at."""
    check_beginning(text)
    check_length(len(text))
    check_length(len(text.encode(errors="replace")))
    if not is_text(text):
        number = next(at for at, line in enumerate(text.split("\n"), 1) if not is_text(line))
        raise BadRequestError(f"user-data has what is not printable in {line_of(text, number)}")


def read_user_data(path: str) -> str:
    """The user-data in a file, "" for no file; raises BadRequestError."""
    if not path:
        return ""
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(USER_DATA_MOST + 1)
    except OSError as error:
        raise BadRequestError(
            f"cannot read {path}: {error.strerror}", "the file is to be on the computer where you type this"
        ) from error
    with found_in(path):
        check_length(len(data))
        text = decoded("it", data)
        check_user_data(text)
    return text


def image(name: str, user_data: str) -> bytes:
    """The disk for the VM `name`. With other user-data it has another instance id, so the guest takes its
    next boot for the first one.
    """
    state = hashlib.sha256(f"{name}\n{user_data}".encode()).hexdigest()
    # JSON is YAML.
    meta = json.dumps({"instance-id": f"seed-{state[:16]}", "local-hostname": name})
    return fat.image(LABEL, {"meta-data": meta.encode(), "user-data": user_data.encode()})
