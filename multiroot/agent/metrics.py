# SPDX-License-Identifier: GPL-2.0-or-later
"""What this root knows as metrics for Prometheus, over HTTP, if `multirootd --metrics` asks for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from multiroot.errors import MultirootError
from multiroot.watch.facts import Facts, MemoryKind, Stage

ANSWER_S = 5.0


class Metrics(Collector):
    """Answers with what is known at the moment of each question. Served by a thread of its own."""

    def __init__(
        self,
        look: Callable[[], Facts],
        quiet: Callable[[], bool],
        settled: Callable[[], dict[Stage, int]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`look` is called in `loop`, unless `quiet()`: the last facts are told then. `settled` counts
        handoffs.
        """
        self._look = look
        self._quiet = quiet
        self._settled = settled
        self._loop = loop
        self._facts = Facts()
        self._close: Callable[[], object] = lambda: None

    def serve(self, address: tuple[str, int]) -> None:
        """Answer there from now on; raises MultirootError when that is another's."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        host, port = address
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise MultirootError(f"cannot tell metrics on {host}:{port}: {error.strerror}") from error

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._close = close

    def close(self) -> None:
        """Answer no more. Not in the loop's thread while a question waits for it."""
        self._close()

    def describe(self) -> list[Metric]:
        """Nothing is looked at to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """In the server's thread."""
        facts, settled = asyncio.run_coroutine_threadsafe(self._now(), self._loop).result(ANSWER_S)
        yield from _roots(facts)
        yield from _machine(facts)
        yield from _vms(facts)
        yield from _handoffs(facts, settled)
        yield _gauge(
            "multiroot_update_step",
            "1 for the last that happened to each step",
            ("step", "edge"),
            {(name, step.edge): 1 for name, step in facts.update.steps.items() if step.edge},
        )

    async def _now(self) -> tuple[Facts, dict[Stage, int]]:
        if not self._quiet():
            self._facts = self._look()
        return self._facts, self._settled()


def _gauge(name: str, text: str, labels: tuple[str, ...], values: dict[tuple[Any, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([str(each) for each in key], value)
    return family


def _roots(facts: Facts) -> Iterator[Metric]:
    roots = facts.roots
    yield _gauge(
        "multiroot_root_info",
        "1 for each root that is known",
        ("root", "role", "state", "kernel"),
        {(number, root.role, root.state, root.kernel_release): 1 for number, root in roots.items()},
    )
    yield _gauge(
        "multiroot_root_splats",
        "Newest lines of its kernel that tell of trouble",
        ("root",),
        {(number,): len(root.splats) for number, root in roots.items()},
    )


def _machine(facts: Facts) -> Iterator[Metric]:
    cpus = Counter((cpu.root, cpu.state.value) for cpu in facts.cpus.values())
    yield _gauge("multiroot_cpus", "CPUs by the root that has them (0: none)", ("root", "state"), dict(cpus))
    memory: Counter[tuple[int, str]] = Counter()
    for each in facts.memory.values():
        if each.kind is MemoryKind.SPARE:
            continue  # by this root alone; it may be another's
        memory[each.root, each.kind.value] += each.size
    yield _gauge("multiroot_memory_bytes", "Memory by who has it (0: all)", ("root", "kind"), dict(memory))


def _vms(facts: Facts) -> Iterator[Metric]:
    vms = facts.vms
    yield _gauge(
        "multiroot_vm_info",
        "1 for each VM",
        ("vm", "state", "owner"),
        {(name, vm.state, vm.owner): 1 for name, vm in vms.items()},
    )
    yield _gauge(
        "multiroot_vm_epoch",
        "Epoch of its owner word",
        ("vm",),
        {(name,): vm.epoch for name, vm in vms.items()},
    )
    yield _gauge(
        "multiroot_vm_memory_bytes",
        "Its RAM",
        ("vm",),
        {(name,): vm.memory_bytes for name, vm in vms.items()},
    )


def _handoffs(facts: Facts, settled: dict[Stage, int]) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "multiroot_handoffs", "Handoffs that this agent has given", labels=("outcome",)
    )
    for stage in (Stage.DONE, Stage.STAYED):
        total.add_metric([stage.value], settled.get(stage, 0))
    yield total
    done = {each.vm: each for each in facts.handoffs.values() if each.stage is Stage.DONE and each.resumed_ns}
    yield _gauge(
        "multiroot_blackout_seconds",
        "No vCPU ran in its last handoff from here",
        ("vm",),
        {(vm,): (each.resumed_ns - each.stopped_ns) / 1e9 for vm, each in done.items()},
    )
    yield _gauge(
        "multiroot_device_state_bytes",
        "Sent in its last handoff from here",
        ("vm",),
        {(vm,): each.device_state_bytes for vm, each in done.items()},
    )
