# SPDX-License-Identifier: GPL-2.0-or-later
"""Running one program for a caller, its streams and exit code kept apart and exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import root_pb2

CHUNK = 64 * 1024

Wrap = Callable[[bytes], root_pb2.ExecResponse]


async def run(requests: AsyncIterator[root_pb2.ExecRequest]) -> AsyncIterator[root_pb2.ExecResponse]:
    """Run the program the first request names; feed it the stdin of all; end it when the caller goes away."""
    first = await anext(requests, None)
    if first is None or not first.argv:
        raise BadRequestError("nothing to run", "give a command")
    try:
        process = await asyncio.create_subprocess_exec(
            *first.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except (FileNotFoundError, PermissionError) as error:
        yield root_pb2.ExecResponse(stderr=f"{first.argv[0]}: {error.strerror}\n".encode())
        yield root_pb2.ExecResponse(exit_code=127 if isinstance(error, FileNotFoundError) else 126)
        return
    feeder = asyncio.create_task(_feed(process, first, requests))
    try:
        async for response in _outputs(process):
            yield response
        code = await process.wait()
        yield root_pb2.ExecResponse(exit_code=code if code >= 0 else 128 - code)
        # Ending the call while the caller still sends would look like a failure there. It has the exit code
        # now and ends the call, or comes to the end of its input.
        await feeder
    finally:
        feeder.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _feed(
    process: asyncio.subprocess.Process,
    first: root_pb2.ExecRequest,
    requests: AsyncIterator[root_pb2.ExecRequest],
) -> None:
    stdin = process.stdin
    assert stdin is not None
    request: root_pb2.ExecRequest | None = first
    reads = True
    while request is not None:
        if request.stdin and reads:
            try:
                stdin.write(request.stdin)
                await stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                # A program may end or close its stdin without reading it all; that is its right.
                reads = False
        if request.stdin_end:
            break
        request = await anext(requests, None)
    stdin.close()


async def _outputs(process: asyncio.subprocess.Process) -> AsyncIterator[root_pb2.ExecResponse]:
    queue: asyncio.Queue[root_pb2.ExecResponse | None] = asyncio.Queue(maxsize=16)

    async def pump(reader: asyncio.StreamReader | None, wrap: Wrap) -> None:
        assert reader is not None
        while data := await reader.read(CHUNK):
            await queue.put(wrap(data))
        await queue.put(None)

    pumps = [
        asyncio.create_task(pump(process.stdout, lambda data: root_pb2.ExecResponse(stdout=data))),
        asyncio.create_task(pump(process.stderr, lambda data: root_pb2.ExecResponse(stderr=data))),
    ]
    try:
        open_streams = len(pumps)
        while open_streams:
            response = await queue.get()
            if response is None:
                open_streams -= 1
            else:
                yield response
    finally:
        for task in pumps:
            task.cancel()
