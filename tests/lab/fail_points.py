# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds an agent of a lab at one of its fail points (docs/faults.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from multiroot.demo import guests
from multiroot.failpoints import Action, FailPoint
from multiroot.lab.agents import CALL_TIMEOUT_S
from multiroot.lab.lab import Lab
from multiroot.rpc import client
from multiroot.rpc.v1 import failpoint_pb2, failpoint_pb2_grpc


@contextmanager
def held(lab: Lab, root: str, point: FailPoint, about: str = "") -> Iterator[Callable[[], None]]:
    """The agent of `root` stops there until the end of the body; what is yielded waits until it has."""
    limit = guests.BOOT_TIMEOUT
    with client.connect(lab.agent_address, root=root) as channel:
        stub = failpoint_pb2_grpc.FailPointServiceStub(channel)
        stub.Arm(
            failpoint_pb2.ArmRequest(point=point, action=Action.PAUSE, about=about), timeout=CALL_TIMEOUT_S
        )

        def wait() -> None:
            stub.AwaitReached(
                failpoint_pb2.AwaitReachedRequest(point=point, timeout_s=limit),
                timeout=limit + CALL_TIMEOUT_S,
            )

        try:
            yield wait
        finally:
            stub.Disarm(failpoint_pb2.DisarmRequest(point=point), timeout=CALL_TIMEOUT_S)
