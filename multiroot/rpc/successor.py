# SPDX-License-Identifier: GPL-2.0-or-later
"""Following an update past the end of the old root: the new one answers at the same address."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.phases import Phase
from multiroot.rpc import phases as wire
from multiroot.rpc.client import Address, connect
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

ANSWER_S = 5.0
POLL_S = 0.3  # nothing at that address can tell us when there will be something again
TIMEOUT_S = 300.0

ADOPTED = ("adopting memory", "done")  # CPUs and devices are the new root's; memory may still be coming
COMPLETE = ("done",)


def wait(
    target: str | Address,
    old_root: int,
    show: Callable[[Phase], None],
    *,
    until: tuple[str, ...] = ADOPTED,
    timeout_s: float = TIMEOUT_S,
    ended: Callable[[], str] = str,
) -> coordinator_pb2.CoordinatorState:
    """Wait until another root than `old_root` answers and has taken over as far as `until` says.

    `show` gets the phases of the new root; `ended` says why there is nothing to wait for any more, "" as
    long as there is. Raises MultirootError then, when the old root went on after all, or when the new one
    could not take everything; WaitTimeoutError.
    """
    deadline = time.monotonic() + timeout_s
    shown: set[tuple[str, str, int]] = set()
    said = "nobody answers"
    while time.monotonic() < deadline:
        state = _ask(target)
        if state is not None and state.root == old_root:
            if state.error:
                raise MultirootError(f"root {old_root} did not retire: {state.error}", "see its log")
            said = f"root {old_root} still answers"
        elif state is not None:
            # Not by their place: an agent keeps only its newest phases.
            for phase in map(wire.from_proto, state.phases):
                key = (phase.side, phase.name, phase.start_ns)
                if key not in shown:
                    shown.add(key)
                    show(phase)
            if state.taking_over_error:
                raise MultirootError(f"root {state.root} did not get everything: {state.taking_over_error}")
            if state.taking_over in until:
                return state
            said = f"root {state.root} is {state.taking_over}"
        if why := ended():
            raise MultirootError(f"{why}: last seen, {said}", "see its consoles")
        time.sleep(POLL_S)
    raise WaitTimeoutError(f"the update did not end within {timeout_s:g} s: {said}")


def _ask(target: str | Address) -> coordinator_pb2.CoordinatorState | None:
    """The state at that address, None when nobody answers."""
    try:
        # A connection of its own each time: an old one may hang on a peer that is gone without a word.
        with connect(target) as channel:
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            return stub.GetState(coordinator_pb2.GetStateRequest(), timeout=ANSWER_S)
    except grpc.RpcError:
        return None
