# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics: what is told over HTTP, and where that is allowed."""

from __future__ import annotations

import asyncio
import socket
import urllib.request

import pytest

from multiroot.agent import metrics_address
from multiroot.agent.metrics import Metrics
from multiroot.errors import BadRequestError, MultirootError
from multiroot.watch.facts import (
    CpuFacts,
    Facts,
    HandoffFacts,
    MemoryKind,
    RangeFacts,
    RootFacts,
    RootState,
    Stage,
    StepFacts,
    UpdateFacts,
    VmFacts,
)


def facts() -> Facts:
    return Facts(
        cpus={"0": CpuFacts(1, 0), "1": CpuFacts(1, 1)},
        memory={"0x0": RangeFacts(0, 4096, MemoryKind.SYSTEM, 1)},
        roots={"1": RootFacts(1, "old", RootState.ALIVE, 'a"b', splats=["x"])},
        vms={"web": VmFacts("running", 1, 7, 1 << 28)},
        update=UpdateFacts(steps={"plan": StepFacts("done"), "carve": StepFacts()}),
        handoffs={
            "web/8": HandoffFacts("web", 1, 2, 8, Stage.DONE, 0, 1_000_000_000, 1_250_000_000, 0, 70_000, 0)
        },
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


async def test_what_is_known_is_told_and_in_a_blackout_what_was_known() -> None:
    port, looks, quiet = free_port(), 0, False

    def look() -> Facts:
        nonlocal looks
        looks += 1
        return facts()

    metrics = Metrics(look, lambda: quiet, lambda: {Stage.DONE: 3}, asyncio.get_running_loop())
    metrics.serve(("127.0.0.1", port))
    try:
        text = await asyncio.to_thread(fetch, port)
        for line in (
            'multiroot_root_info{kernel="a\\"b",role="old",root="1",state="alive"} 1.0',
            'multiroot_root_splats{root="1"} 1.0',
            'multiroot_cpus{root="1",state="online"} 2.0',
            'multiroot_memory_bytes{kind="system",root="1"} 4096.0',
            'multiroot_vm_info{owner="1",state="running",vm="web"} 1.0',
            'multiroot_vm_epoch{vm="web"} 7.0',
            'multiroot_handoffs_total{outcome="done"} 3.0',
            'multiroot_handoffs_total{outcome="stayed"} 0.0',
            'multiroot_blackout_seconds{vm="web"} 0.25',
            'multiroot_device_state_bytes{vm="web"} 70000.0',
            'multiroot_update_step{edge="done",step="plan"} 1.0',
        ):
            assert line in text.splitlines(), text
        quiet = True
        assert 'multiroot_vm_epoch{vm="web"} 7.0' in await asyncio.to_thread(fetch, port)
        assert looks == 1
        with pytest.raises(MultirootError, match="cannot tell metrics on"):
            metrics.serve(("127.0.0.1", port))
    finally:
        await asyncio.to_thread(metrics.close)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        ("10.77.0.2:1", ("10.77.0.2", 1)),
    ],
)
def test_where_metrics_may_be_told(text: str, place: tuple[str, int]) -> None:
    assert metrics_address.parse(text) == place


@pytest.mark.parametrize(
    "text",
    ["", "9100", "127.0.0.1", "0.0.0.0:9100", "10.77.1.1:9100", "127.0.0.1:0", "127.0.0.1:70000", "x:1"],
)
def test_and_where_not(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"127\.0\.0\.1:9100"):
        metrics_address.parse(text)
