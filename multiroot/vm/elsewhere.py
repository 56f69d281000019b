# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM services of the roots beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from multiroot.errors import PeerLostError
from multiroot.rpc.server import ROOT_KEY, PeerChannel
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2_grpc

Metadata = tuple[tuple[str, str], ...]


def no_other_root(name: str) -> NoReturn:
    """The channel to another root where there is none."""
    raise PeerLostError(f"there is no root {name} beside this one", "see `multiroot root list`")


class Elsewhere:
    """Calls to VmService of another root, for what that root knows itself."""

    def __init__(self, channel: PeerChannel) -> None:
        """`channel` returns the connection to a root by its number, or raises PeerLostError."""
        self._channel = channel

    @contextmanager
    def asked(self, root: int) -> Iterator[tuple[vm_pb2_grpc.VmServiceAsyncStub, Metadata]]:
        """The service of root `root` and what every call to it takes along.

        In the body, errors of calls are raised as they are in that root; PeerLostError if it does not answer.
        """
        with translated(f"root {root}'s agent"):
            yield vm_pb2_grpc.VmServiceStub(self._channel(str(root))), ((ROOT_KEY, str(root)),)
