# SPDX-License-Identifier: GPL-2.0-or-later
"""The page's server: who may look and act, what is refused, and that no browser can fill its memory."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from multiroot.errors import ConflictError
from multiroot.page import audience, server
from multiroot.page.actions import Actions, catalogue
from multiroot.page.guard import TOKEN_HEADER
from multiroot.page.server import Served
from multiroot.proc import Completed
from multiroot.watch.events import Change, Event, Points, Say, State
from multiroot.watch.hub import MOST

TOKEN = "0123456789abcdef"
SAMPLE = Path(__file__).parents[1] / "watch/sample.mrlog"
Client = TestClient[web.Request, web.Application]
DOCUMENT: dict[str, Any] = {
    "roots": {"1": {"number": 1, "role": "old", "state": "alive"}},
    "vms": {"vm0": {"owner": 1}},
    "streams": {"ticks/vm0": {"kind": "ticks", "vm": "vm0"}},
}
NEW_ROOT = {"roots": {"2": {"number": 2, "role": "new", "state": "alive"}}}


class Ran:
    """Stands for the command line: notes what is run; `go` lets it end."""

    def __init__(self) -> None:
        self.argv: list[tuple[str, ...]] = []
        self.environment: list[str] = []

    def __call__(self, argv: Sequence[str], timeout: float) -> Completed:
        self.argv.append(tuple(argv))
        return Completed(tuple(argv), 0, "done that\n", "")


def served(ran: Ran | None = None) -> Served:
    made = Served(lab="l", actions=Actions(catalogue("7.x", "l"), ran or Ran()), token=TOKEN)
    made.hub.publish(State(1, DOCUMENT))
    return made


@asynccontextmanager
async def client_of(what: Served, source: server.Source | None = None) -> AsyncIterator[Client]:
    async with TestClient(TestServer(server.application(what, source), host=server.HOST)) as client:
        yield client


async def act(client: Client, name: str, body: object, token: str = TOKEN) -> ClientResponse:
    return await client.post(f"/actions/{name}", json=body, headers={TOKEN_HEADER: token})


async def events(client: Client) -> AsyncGenerator[dict[str, Any], None]:
    async with client.get("/facts") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async for line in answer.content:
            if line.startswith(b"data: {") and line.strip() != b"data: {}":
                yield json.loads(line[6:])


@pytest.mark.parametrize("token", ["", "0", TOKEN[:-1], TOKEN + "0", "ü"])
async def test_who_has_no_token_cannot_act(token: str) -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        answer = await client.post(
            "/actions/launch", json={"confirmed": True}, headers={TOKEN_HEADER: token} if token else {}
        )
        assert answer.status == 403
        assert "only look" in (await answer.json())["error"]
        listed = await (await client.get("/actions")).json()
    assert not ran.argv
    assert listed["may_act"] is False


async def test_a_server_without_a_token_lets_nobody_act() -> None:
    ran = Ran()
    what = served(ran)
    what.token = ""
    async with client_of(what) as client:
        assert (await act(client, "launch", {}, "")).status == 403
    assert not ran.argv


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:80"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:x"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/facts", "/actions", "/mode", "/static/main.js"])
async def test_pages_of_others_get_nothing(headers: dict[str, str], path: str) -> None:
    async with client_of(served()) as client:
        answer = await client.get(path, headers=headers)
        assert answer.status == 403


async def test_an_action_of_another_origin_is_refused_even_with_the_token() -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        answer = await client.post(
            "/actions/launch", json={}, headers={TOKEN_HEADER: TOKEN, "Origin": "http://127.0.0.1:1"}
        )
        assert answer.status == 403
    assert not ran.argv


async def test_an_action_runs_the_command_and_tells_how_it_ended() -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        answer = await (await act(client, "launch", {})).json()
    assert ran.argv == [("root", "launch", "--kernel", "7.x")]
    assert answer == {"command": "multiroot root launch --kernel 7.x", "code": 0, "said": "done that"}


async def test_a_dry_run_changes_nothing() -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        assert (await act(client, "launch", {"dry_run": True})).status == 200
        told = await (await act(client, "hand-over", {"dry_run": True})).json()
    assert ran.argv == [("root", "launch", "--kernel", "7.x", "--dry-run")]
    assert "vm0: root 1 -> the new root" in told["said"]


@pytest.mark.parametrize("name", ["crash", "retire", "next"])
@pytest.mark.parametrize("body", [{}, {"confirmed": False}, {"confirmed": "true"}, {"confirmed": 1}])
async def test_what_loses_something_is_not_done_unless_confirmed(name: str, body: dict[str, Any]) -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        answer = await act(client, name, body)
        assert answer.status == 409
    assert not ran.argv


async def test_a_crash_names_the_vms_that_it_would_take_along() -> None:
    what = served()
    what.hub.publish(Change(2, NEW_ROOT))
    what.hub.publish(Change(3, {"vms": {"vm0": {"owner": 2}, "vm1": {"owner": 1}}}))
    async with client_of(what) as client:
        listed = {each["name"]: each for each in (await (await client.get("/actions")).json())["actions"]}
    assert listed["crash"]["loses"].endswith("Running there now: vm0.")
    assert listed["hand-over"]["possible"]
    assert not listed["launch"]["possible"]


async def test_one_action_at_a_time() -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(argv: Sequence[str], timeout: float) -> Completed:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return Completed(tuple(argv), 0, "", "")

    what = served()
    what.actions = Actions(catalogue("6.12", "l"), slow)
    async with client_of(what) as client:
        first = asyncio.create_task(act(client, "launch", {}))
        await begun.wait()
        second = await act(client, "abort", {})
        assert second.status == 409
        assert "Launch still runs" in (await second.json())["error"]
        go.set()
        assert (await first).status == 200
        assert (await act(client, "abort", {})).status == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b'"x"', b"\xff\xfe", b"[" * 3000, b'{"confirmed":NaN', b"null"]
)
async def test_bad_bodies_are_bad_requests(body: bytes) -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        headers = {TOKEN_HEADER: TOKEN, "Content-Type": "application/json"}
        answer = await client.post("/actions/launch", data=body, headers=headers)
        assert answer.status == 400
    assert not ran.argv


async def test_a_form_of_another_page_is_no_request() -> None:
    ran = Ran()
    async with client_of(served(ran)) as client:
        answer = await client.post("/actions/launch", data={"confirmed": "1"}, headers={TOKEN_HEADER: TOKEN})
        assert answer.status == 400
    assert not ran.argv


async def test_long_bodies_and_unknown_actions_are_refused() -> None:
    async with client_of(served()) as client:
        headers = {TOKEN_HEADER: TOKEN, "Content-Type": "application/json"}
        assert (await client.post("/actions/launch", data=b" " * 10_000, headers=headers)).status == 413
        answer = await act(client, "rm", {})
        assert answer.status == 400
        assert "launch" in (await answer.json())["hint"]


async def test_a_browser_gets_the_whole_document_first_and_then_changes() -> None:
    what = served()
    what.hub.publish(Points(2, {"ticks/vm0": [(2, 1, 1)]}))
    what.hub.publish(Say(3, "hello"))
    async with client_of(what) as client:
        stream = events(client)
        first = [await anext(stream) for _ in range(3)]
        what.hub.publish(Change(4, {"vms": {"vm0": {"owner": 2}}}))
        assert await anext(stream) == {"at": 4, "patch": {"vms": {"vm0": {"owner": 2}}}}
        await stream.aclose()
    assert first[0] == {"at": 3, "state": DOCUMENT}
    assert first[1]["points"] == {"ticks/vm0": [[2, 1, 1]]}
    assert first[2]["say"] == "hello"


async def test_a_source_feeds_the_browsers_and_its_machine_may_begin_anew() -> None:
    async def source() -> AsyncGenerator[Event, None]:
        yield State(1_000, DOCUMENT)
        yield Change(2_000, NEW_ROOT)
        yield State(5, {"machine": {"name": "another"}})

    what = Served()
    async with client_of(what, source) as client:
        stream = events(client)
        seen = await anext(stream)
        while "another" not in json.dumps(seen):
            seen = await anext(stream)
        assert seen["at"] == 5
        await stream.aclose()


async def test_a_browser_that_hears_nothing_new_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.01)
    async with client_of(served()) as client, client.get("/facts") as answer:
        async for line in answer.content:
            if line == b"event: idle\n":
                break
        else:
            pytest.fail("the stream ended")


async def test_a_browser_that_does_not_read_costs_bounded_memory() -> None:
    what = served()
    filler = "x" * 2000
    async with client_of(what) as client:
        reader = await client.get("/facts")
        await reader.content.readuntil(b"\n\n")
        await asyncio.sleep(0)
        tracemalloc.start()
        for number in range(10_000):
            what.hub.publish(Change(number + 2, {"vms": {"vm0": {"error": f"{number} {filler}"}}}))
            if not number % 100:
                await asyncio.sleep(0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # 10000 of them would be 20 MB; what waits for one reader is MOST of them at most.
        assert most < 4 * MOST * len(filler) + (4 << 20)
        what.hub.close()
        last = b""
        async for line in reader.content:
            last = line if line.startswith(b"data: {") else last
        # It missed a lot, and knows how things stand.
        assert b"9999 xxx" in last or b'"say"' in last


async def test_what_browsers_are_told_of_each_answer() -> None:
    async with client_of(served()) as client:
        for path in ("/", "/static/main.js", "/mode", "/actions/none"):
            answer = await client.get(path)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_a_recording_is_served_whole_and_cannot_be_acted_on() -> None:
    async with client_of(Served(recording=SAMPLE)) as client:
        assert (await (await client.get("/mode")).json())["replay"] is True
        assert await (await client.get("/recording")).text() == SAMPLE.read_text()
        assert (await (await client.get("/actions")).json())["actions"] == []
        assert (await act(client, "launch", {})).status == 403


async def test_a_lab_has_no_recording() -> None:
    async with client_of(served()) as client:
        assert (await client.get("/recording")).status == 404


async def test_nothing_but_static_files_is_served() -> None:
    async with client_of(served()) as client:
        for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/", "/etc/passwd"):
            assert (await client.get(path)).status in (403, 404)


def test_a_taken_port_is_a_conflict() -> None:
    with server.listen(0) as taken, pytest.raises(ConflictError, match="cannot listen on port"):
        server.listen(taken.getsockname()[1])


async def test_an_audience_says_how_much_it_has_seen() -> None:
    what = served()
    async with client_of(what) as client:

        async def act_on() -> None:
            for at in range(2, 5):
                what.hub.publish(Say(at, "more"))
            await asyncio.sleep(0.2)

        seen = await audience.watch(str(client.make_url("/")), 3, 0, act_on)
    # The first events may have been on their way when all were there.
    assert seen["least_events"] >= 3
    assert seen["events"] >= 9
    assert seen["bytes"] > 9 * len('data: {"at":2,"say":"more"}')


def test_an_event_is_made_into_bytes_once_however_many_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Event] = []
    whole = server.encoded

    def counted(event: Event) -> bytes:
        made.append(event)
        return whole(event)

    monkeypatch.setattr(server, "encoded", counted)
    encoder, many = server.Encoder(), [Say(at, str(at)) for at in range(3 * server.ENCODED)]
    for event in many:
        assert {encoder(event) for _ in range(3)} == {whole(event)}
    assert made == many
    assert encoder(many[0]) == whole(many[0])
