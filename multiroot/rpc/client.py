# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding and calling an agent from a command."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import grpc

from multiroot.errors import PeerLostError
from multiroot.rpc.server import ROOT_KEY, parse_root_name

AGENT_SOCKET = Path("/run/multiroot/agent.sock")
AGENT_PORT = 7700


def link_address(root: int) -> str:
    """Root number `root`'s address on the network that all roots share."""
    return f"10.77.0.{root}"


def link_target(root: int) -> str:
    """Where its agent listens there."""
    return f"{link_address(root)}:{AGENT_PORT}"


def agent_target() -> str:
    """The gRPC target of the agent to ask: $MULTIROOT_AGENT, this root's own, or the running lab's.

    Raises PeerLostError when there is none, BadRequestError when labs run and it could be any of them.
    """
    target = os.environ.get("MULTIROOT_AGENT")
    if target:
        return target
    if AGENT_SOCKET.exists():
        return f"unix:{AGENT_SOCKET}"
    # Only a workstation has labs, and a root need not load what knows of them.
    from multiroot.lab.state import running

    lab = running()
    if lab:
        return lab.agent_address
    raise PeerLostError("no agent to talk to", "run this in a root, or start a lab with `multiroot lab up`")


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


def connect(root: str | None = None, target: str | None = None) -> grpc.Channel:
    """A channel to the agent, calls meaning `root` ("old", "new", a number; None: the agent's own root)."""
    # A proxy from the environment must never get between us and a loopback or unix address.
    channel = grpc.insecure_channel(
        target or agent_target(),
        options=(("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20)),
    )
    if root is None:
        return channel
    parse_root_name(root)
    return grpc.intercept_channel(channel, _NameRoot(root))
