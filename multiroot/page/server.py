# SPDX-License-Identifier: GPL-2.0-or-later
"""The page's server: static files, the stream of facts as server-sent events, and the actions.

It listens on the loopback of the workstation only. With a recording in place of a lab it serves that, and
there is nothing to act on.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from multiroot.errors import BadRequestError, ConflictError, MultirootError, StrangerError
from multiroot.lab.visitors import Door
from multiroot.page import guard
from multiroot.page.actions import Actions
from multiroot.watch.events import Event, State, to_json
from multiroot.watch.hub import Hub
from multiroot.watch.view import View

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
BUNDLE_S = 0.1  # what happens within this is written at once: many browsers look on a busy computer
IDLE_S = 2.0  # a browser that hears nothing for three times as long knows that the server is gone
RETRY_MS = 500  # how soon it then asks again
ENCODED = 64  # events whose form is kept; a browser that is further behind has its own made
BODY = 4096  # bytes of a request; ours have some twenty
_IDLE = b"event: idle\ndata: {}\n\n"
_STATUS = {BadRequestError: 400, StrangerError: 403, ConflictError: 409}

Source = Callable[[], AsyncGenerator[Event, None]]


class Encoder:
    """Events as server-sent ones, each made once however many browsers get it."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Event, bytes]] = {}
        self._order: deque[int] = deque()

    def __call__(self, event: Event) -> bytes:
        event_id = id(event)
        known = self._known.get(event_id)
        if known is None:
            # The event is kept with it, so nothing else can have its id.
            known = self._known[event_id] = (event, encoded(event))
            self._order.append(event_id)
            if len(self._order) > ENCODED:
                del self._known[self._order.popleft()]
        return known[1]


@dataclass
class Served:
    """What the page is about: a lab's facts and what can be done there, or a recording."""

    lab: str = ""
    actions: Actions | None = None
    recording: Path | None = None
    bench: Callable[[], dict[str, Any]] = dict
    board: Callable[[], Door | None] = lambda: None
    token: str = ""
    view: View = field(default_factory=View)

    def __post_init__(self) -> None:
        self.hub: Hub[Event] = Hub(self.view)
        self.encoded = Encoder()


SERVED = web.AppKey("served", Served)


def application(served: Served, source: Source | None = None) -> web.Application:
    """The server's application; `source` gives the events that its hub takes, for as long as it runs."""
    app = web.Application(middlewares=[_told, guard.guard], client_max_size=BODY)
    app[SERVED] = served
    app.on_response_prepare.append(guard.add_headers)
    app.router.add_get("/", _index)
    app.router.add_get("/mode", _mode)
    app.router.add_get("/facts", _facts)
    app.router.add_get("/recording", _recording)
    app.router.add_get("/bench", _bench)
    app.router.add_get("/board", _board)
    app.router.add_get("/actions", _actions)
    app.router.add_post("/actions/{name}", _act)
    app.router.add_static("/static/", STATIC)
    if source is not None:
        app.cleanup_ctx.append(lambda app: _pump(app, source))
    app.on_shutdown.append(_end_streams)
    return app


async def _pump(app: web.Application, source: Source) -> AsyncIterator[None]:
    """Let the hub have the source's events while the server runs."""
    task = asyncio.create_task(_feed(app[SERVED], source))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def listen(port: int) -> socket.socket:
    """A socket on the loopback; 0 is any free port. Raises ConflictError if somebody has the port."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConflictError(
            f"cannot listen on port {port}: {error.strerror}", "multiroot lab ui --port 0"
        ) from error


def serve(app: web.Application, at: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    web.run_app(app, sock=at, print=None, access_log=None, shutdown_timeout=2.0, handle_signals=True)


async def _feed(served: Served, source: Source) -> None:
    async with aclosing(source()) as events:
        async for event in events:
            if isinstance(event, State):
                # It may be of another machine, whose clock began anew.
                served.view.at = 0
            served.hub.publish(event)


async def _end_streams(app: web.Application) -> None:
    app[SERVED].hub.close()


@web.middleware
async def _told(request: web.Request, handler: guard.Handler) -> web.StreamResponse:
    """Errors of ours as JSON, with a status that fits."""
    try:
        return await handler(request)
    except MultirootError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        return web.json_response({"error": error.message, "hint": error.hint}, status=status)


async def _index(_request: web.Request) -> web.StreamResponse:
    return web.FileResponse(STATIC / "index.html")


async def _mode(request: web.Request) -> web.StreamResponse:
    served = request.app[SERVED]
    return web.json_response({"replay": served.recording is not None, "lab": served.lab})


async def _bench(request: web.Request) -> web.StreamResponse:
    return web.json_response(await asyncio.to_thread(request.app[SERVED].bench))


async def _board(request: web.Request) -> web.StreamResponse:
    found = request.app[SERVED].board()
    return web.json_response({"vm": found.vm, "port": found.port} if found else {})


async def _recording(request: web.Request) -> web.StreamResponse:
    recording = request.app[SERVED].recording
    if recording is None:
        raise web.HTTPNotFound(text="this is a lab, not a recording\n")
    return web.FileResponse(recording, headers={"Content-Type": "application/jsonl"})


async def _facts(request: web.Request) -> web.StreamResponse:
    served = request.app[SERVED]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    # A browser that has gone away is no error of ours.
    with suppress(ConnectionResetError):
        await response.write(f"retry: {RETRY_MS}\n\n".encode())
        async with aclosing(served.hub.bundles(BUNDLE_S, IDLE_S)) as told:
            async for events in told:
                # A browser that does not read holds up this write, and the hub then skips what it misses.
                await response.write(b"".join(map(served.encoded, events)) if events else _IDLE)
    return response


def encoded(event: Event) -> bytes:
    """An event as a server-sent one."""
    return b"data: " + json.dumps(to_json(event), separators=(",", ":")).encode() + b"\n\n"


async def _actions(request: web.Request) -> web.StreamResponse:
    served = request.app[SERVED]
    listed = served.actions.listed(served.view.facts) if served.actions else []
    return web.json_response({
        "actions": listed,
        "busy": served.actions.busy if served.actions else "",
        "may_act": guard.may_act(request, served.token),
    })  # fmt: skip


async def _act(request: web.Request) -> web.StreamResponse:
    served = request.app[SERVED]
    if not guard.may_act(request, served.token):
        raise StrangerError("this page may only look", "open the address that `multiroot lab ui` printed")
    if served.actions is None:
        raise ConflictError("a recording cannot be changed", "multiroot lab ui")
    wanted = await _body(request)
    name = request.match_info["name"]
    if wanted.get("dry_run") is True:
        return web.json_response(await served.actions.try_out(name, served.view.facts))
    confirmed = wanted.get("confirmed") is True
    return web.json_response(await served.actions.act(name, served.view.facts, confirmed=confirmed))


async def _body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises BadRequestError for anything else."""
    if request.content_type != "application/json":
        raise BadRequestError("the request is not JSON", "Content-Type: application/json")
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError("the request is no object", '{"confirmed": true}')
    return body
