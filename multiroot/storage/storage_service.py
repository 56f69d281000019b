# SPDX-License-Identifier: GPL-2.0-or-later
"""StorageService: the disks of this root, for the VMs of the roots beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from multiroot.errors import BadRequestError
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import storage_pb2, storage_pb2_grpc
from multiroot.storage.filesystems import Filesystem
from multiroot.storage.storage import OPEN_S, Endpoint, Storage


class StorageService(storage_pb2_grpc.StorageServiceServicer):
    """Answers the doors of other roots."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def Open(self, request: storage_pb2.OpenDiskRequest, context: Any) -> storage_pb2.OpenDiskResponse:
        if not request.path.startswith("/"):
            raise BadRequestError(f"no path of a file: {request.path!r}")
        endpoint = await asyncio.to_thread(self._storage.serve, request.path)
        return storage_pb2.OpenDiskResponse(host=endpoint.host, port=endpoint.port, key=endpoint.key)


async def ask(channels: Iterable[Callable[[], Any]], path: str) -> Endpoint | None:
    """The endpoint that one of the roots at the other ends of `channels` offers; None if none has the file.

    Raises MultirootError for a root that has it and can't serve it, or does not answer.
    """
    for channel in channels:
        stub = storage_pb2_grpc.StorageServiceStub(channel())
        try:
            with translated("the other root's agent"):
                answer = await stub.Open(storage_pb2.OpenDiskRequest(path=path), timeout=OPEN_S)
        except BadRequestError:
            continue
        return Endpoint(answer.host, answer.port, answer.key)
    return None


def to_proto(filesystem: Filesystem) -> storage_pb2.Filesystem:
    """As it is sent."""
    return storage_pb2.Filesystem(**filesystem.to_dict())


def from_proto(filesystem: storage_pb2.Filesystem) -> Filesystem:
    """Raises BadRequestError for what could not be mounted."""
    said = (filesystem.uuid, filesystem.kind, filesystem.point, filesystem.options, filesystem.own_options)
    return Filesystem(*said).checked()
