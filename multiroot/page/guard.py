# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may ask the page's server for what.

Whoever is on this computer may look. Acting takes the token, which is in the address that `lab ui` prints,
behind the "#", so that it is in no log and in no Referer. A page of somebody else's that a browser has open
can do neither: its Host or its Origin is not ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

TOKEN_HEADER = "Multiroot-Token"
_NAMES = ("127.0.0.1", "localhost", "[::1]")
# Nothing from anywhere else, no form that leads away, and nobody may put the page into theirs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'self'; frame-src http://127.0.0.1:*; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def same_place(request: web.Request) -> bool:
    """Whether the request was meant for this server, and comes from no other site."""
    host = request.headers.get("Host", "")
    name, _, port = host.rpartition(":")
    if name not in _NAMES or not port.isdigit():
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin == f"http://{host}"


def may_act(request: web.Request, token: str) -> bool:
    """Whether the request brings the token."""
    brought = request.headers.get(TOKEN_HEADER, "")
    return bool(token) and hmac.compare_digest(brought.encode(), token.encode())


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses requests from elsewhere, and says of everything how it may be used."""
    if not same_place(request):
        raise web.HTTPForbidden(text="this server answers its own page on this computer only\n")
    return await handler(request)


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """What browsers are to know of each answer."""
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cache-Control", "no-store")
