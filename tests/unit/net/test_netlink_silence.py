# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel whose answer is lost: nobody waits for it for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from multiroot.errors import MultirootError
from multiroot.net import netlink
from multiroot.net.netlink import Netlink, NoAnswerError
from multiroot.net.plan import AddBridge


class Client:
    """Answers nothing as often as `silent` says, then that there is no device."""

    silent = 0
    opened = 0

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        Client.opened += 1

    def close(self) -> None:
        os.close(self._fileno)

    async def get_addr(self, family: int) -> AsyncIterator[dict[str, Any]]:
        return self._answer()

    async def get_links(self) -> AsyncIterator[dict[str, Any]]:
        return self._answer()

    async def link(self, *words: object, **named: object) -> None:
        if Client.silent:
            await asyncio.Event().wait()

    async def _answer(self) -> AsyncIterator[dict[str, Any]]:
        if Client.silent:
            Client.silent -= 1
            await asyncio.Event().wait()
        for nothing in ():
            yield nothing


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Netlink:
    monkeypatch.setattr(netlink, "ANSWER_S", 0.05)
    monkeypatch.setattr(netlink, "_load", lambda: Client)
    monkeypatch.setattr(Client, "opened", 0)
    return Netlink()


async def test_what_changes_nothing_is_asked_once_more(
    asked: Netlink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Client, "silent", 1)
    assert await asked.links() == []
    assert Client.opened == 2
    assert "the kernel has not answered within 0.05 s; once more" in caplog.text


async def test_then_it_is_an_error(asked: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "silent", 2)
    with pytest.raises(NoAnswerError, match="list network devices: the kernel has not answered"):
        await asked.links()


async def test_a_change_is_not_made_twice(asked: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "silent", 1)
    with pytest.raises(MultirootError, match="has not answered"):
        await asked.apply(AddBridge("mrbr0"))
    assert Client.opened == 1
