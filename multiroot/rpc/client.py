# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to an agent, and which root behind it is meant."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from multiroot.rpc.border import ANSWER_MOST
from multiroot.rpc.server import ROOT_KEY, parse_root_name
from multiroot.rpc.token import TOKEN_KEY

AGENT_SOCKET = Path("/run/multiroot/agent.sock")


@dataclass(frozen=True)
class Address:
    """A gRPC target and what one has to know to be let in there. As text it is the target alone."""

    target: str
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.target


class _CallDetails(
    namedtuple(
        "_CallDetails",
        ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"),
    ),
    grpc.ClientCallDetails,
):
    """grpc wants details as an object with these attributes."""


class _Say(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds metadata to every call."""

    def __init__(self, *said: tuple[str, str]) -> None:
        self._said = said

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        named = _CallDetails(
            details.method,
            details.timeout,
            [*(details.metadata or ()), *self._said],
            getattr(details, "credentials", None),
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        return continuation(named, request)

    # One body serves all four shapes of call; grpc's types give each its own.
    intercept_unary_unary = _call  # type: ignore[assignment]
    intercept_unary_stream = _call  # type: ignore[assignment]
    intercept_stream_unary = _call  # type: ignore[assignment]
    intercept_stream_stream = _call  # type: ignore[assignment]


def connect(target: str | Address, *, root: str | None = None) -> grpc.Channel:
    """A channel to the agent at `target`.

    `root` is the root that calls mean: "old", "new" or a number. None is the agent's own. Raises
    BadRequestError for anything else.
    """
    address = target if isinstance(target, Address) else Address(target)
    said = []
    if root is not None:
        parse_root_name(root)
        said.append((ROOT_KEY, root))
    if address.token:
        said.append((TOKEN_KEY, address.token))
    # A proxy from the environment must never get between us and a loopback or unix address.
    channel = grpc.insecure_channel(
        address.target,
        options=(("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", ANSWER_MOST)),
    )
    return grpc.intercept_channel(channel, _Say(*said)) if said else channel
