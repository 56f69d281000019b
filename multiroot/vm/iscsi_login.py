# SPDX-License-Identifier: GPL-2.0-or-later
"""A user and a password for an iSCSI target, and how they are said to it: CHAP (RFC 1994, RFC 7143 12.1.3).

The password itself is never sent, and stands in no definition, message, log or command line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from multiroot.errors import BadRequestError

MOST = 1024  # bytes of a file with one
OFFER = {"AuthMethod": "CHAP,None"}
CHOICE = {"CHAP_A": "5"}  # MD5, which all targets know


@dataclass(frozen=True)
class Login:
    """Who we are to a target."""

    user: str
    password: str = field(repr=False)


def parse(content: bytes) -> Login:
    """The login in a file: a line USER:PASSWORD. Raises BadRequestError, which tells nothing of the file."""
    try:
        lines = content.decode().splitlines() if len(content) <= MOST else []
    except UnicodeDecodeError:
        lines = []
    user, _, password = lines[0].partition(":") if len(lines) == 1 else ("", "", "")
    if not user or not password or not f"{user}{password}".isprintable():
        raise BadRequestError(
            "this is no user and password for an iSCSI target", "write one line into it: USER:PASSWORD"
        )
    return Login(user, password)


def answer(login: Login, challenge: Mapping[str, str]) -> dict[str, str]:
    """What a target is told that has sent these keys; raises ValueError for keys that are no challenge."""
    if challenge.get("CHAP_A") != CHOICE["CHAP_A"]:
        raise ValueError("it knows no MD5")
    number, said = int(challenge.get("CHAP_I", "")), _bytes(challenge.get("CHAP_C", ""))
    if not said:
        raise ValueError("it asks nothing")
    digest = hashlib.md5(bytes([number]) + login.password.encode() + said, usedforsecurity=False)
    return {"CHAP_N": login.user, "CHAP_R": f"0x{digest.hexdigest()}"}


def _bytes(text: str) -> bytes:
    """A binary value as RFC 7143, 6.1 has it."""
    if text[:2].lower() == "0b":
        try:
            return base64.b64decode(text[2:], validate=True)
        except binascii.Error as error:
            raise ValueError(f"not a value: {error}") from error
    return bytes.fromhex(text[2:]) if text[:2].lower() == "0x" else b""
