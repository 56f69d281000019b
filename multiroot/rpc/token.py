# SPDX-License-Identifier: GPL-2.0-or-later
"""The token that tells friend from stranger where an agent is reached over TCP by more than its own root.

A caller sends it with every call. It is a line in a file that nobody but its owner may read.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from multiroot.errors import MultirootError, StrangerError
from multiroot.rpc.server import Continuation, refuse

TOKEN_KEY = "multiroot-token"
_SIZE = 32  # bytes


def make_token(path: Path) -> None:
    """Write a new token to `path`, which must not be there yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(_SIZE) + "\n")


def read_token(path: Path) -> str:
    """The token in `path`; raises MultirootError when there is none, or others than its owner may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise MultirootError(f"others may read the token in {path}", f"chmod 600 {path}")
        token = path.read_text().strip()
    except OSError as error:
        raise MultirootError(f"no token in {path}: {error.strerror}") from error
    if not token.isascii() or not token.isalnum():
        raise MultirootError(f"what is in {path} is not a token", f"rm {path}")
    return token


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call that does not bring the token, whatever it is about."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        brought = dict(handler_call_details.invocation_metadata or ()).get(TOKEN_KEY, "")
        text = brought if isinstance(brought, bytes) else brought.encode()
        if hmac.compare_digest(text, self._token):
            return await continuation(handler_call_details)
        return refuse(
            StrangerError(
                "the agent does not know who calls", "the token is in the lab's folder: `lab status`"
            )
        )
