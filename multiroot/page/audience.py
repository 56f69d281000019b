# SPDX-License-Identifier: GPL-2.0-or-later
"""Many who look at a page at once, for measurements: readers of its stream, and tabs of a real Chromium.

python -m multiroot.page.audience ADDRESS --readers 50 --tabs 2

They have the lowest priority that this computer gives, so that they disturb the lab machine by what they ask
of it and not by the CPU that they take. Once all of them see the machine it prints "ready". At SIGTERM it
prints one JSON object with what they have seen since.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from multiroot.errors import MultirootError
from multiroot.page.picture import chromium
from multiroot.processes import give_way

READY_S = 120.0
_LINE_MOST = 16 << 20  # bytes; a whole document with its strips is one line
_DATA = b"data: "


class Reader:
    """One that reads the stream of facts, and counts events and bytes."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.begun = asyncio.Event()
        self.events = 0
        self.bytes = 0

    async def read(self) -> None:
        """Until the server ends the stream, which is an error."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LINE_MOST)
        try:
            ask = (
                f"GET /facts HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAccept: text/event-stream\r\n\r\n"
            )
            writer.write(ask.encode())
            while line := await reader.readline():
                self.bytes += len(line)
                if line.startswith(_DATA):
                    self.events += 1
                    self.begun.set()
        finally:
            writer.close()
        raise MultirootError("the page's server has ended the stream")


@asynccontextmanager
async def tabs(address: str, count: int) -> AsyncIterator[None]:
    """So many tabs of a Chromium that draw the page. Raises MultirootError if there is no Chromium."""
    from playwright.async_api import async_playwright

    async with async_playwright() as drive:
        browser = await drive.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for _ in range(count):
            page = await browser.new_page()
            await page.goto(address)
            await page.locator("body[data-ready]").wait_for()
        yield
        await browser.close()


async def watch(
    address: str, readers: int, count: int, until: Callable[[], Awaitable[object]]
) -> dict[str, int]:
    """All of them; `until` is called when all are there. How much they have seen from then to its end."""
    place = urlsplit(address)
    everybody = [Reader(place.hostname or "", place.port or 80) for _ in range(readers)]
    async with AsyncExitStack() as stack:
        if count:
            await stack.enter_async_context(tabs(address, count))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(each.read()) for each in everybody]
        async with asyncio.timeout(READY_S):
            for each in everybody:
                await each.begun.wait()
        before = [(each.events, each.bytes) for each in everybody]
        await until()
        seen = [each.events - events for each, (events, _) in zip(everybody, before, strict=True)]
        size = sum(each.bytes - size for each, (_, size) in zip(everybody, before, strict=True))
        for task in tasks:
            task.cancel()
    return {"least_events": min(seen, default=0), "events": sum(seen), "bytes": size, "tabs": count}


async def _told() -> None:
    """Say that all are there, and wait to be told to end."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await ended.wait()


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--tabs", type=int, default=0)
    words = parser.parse_args()
    give_way()
    seen = asyncio.run(watch(words.address, words.readers, words.tabs, _told))
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main()
