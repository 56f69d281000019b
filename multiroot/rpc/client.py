# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to an agent, and which root behind it is meant."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import grpc

from multiroot.rpc.server import ROOT_KEY, parse_root_name

AGENT_SOCKET = Path("/run/multiroot/agent.sock")


class _CallDetails(
    namedtuple(
        "_CallDetails",
        ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"),
    ),
    grpc.ClientCallDetails,
):
    """grpc wants details as an object with these attributes."""


class _NameRoot(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the root a caller means to every call."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        named = _CallDetails(
            details.method,
            details.timeout,
            [*(details.metadata or ()), (ROOT_KEY, self._root)],
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


def connect(target: str, *, root: str | None = None) -> grpc.Channel:
    """A channel to the agent at `target`.

    `root` is the root that calls mean: "old", "new" or a number. None is the agent's own. Raises
    BadRequestError for anything else.
    """
    if root is not None:
        parse_root_name(root)
    # A proxy from the environment must never get between us and a loopback or unix address.
    channel = grpc.insecure_channel(
        target,
        options=(("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20)),
    )
    return channel if root is None else grpc.intercept_channel(channel, _NameRoot(root))
