# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent imports when it starts: new roots are waited for."""

from __future__ import annotations

from multiroot.bench import imports
from multiroot.bench.imports import Import, Package, measure, packages, parse

TEXT = """import time: self [us] | cumulative | imported package
import time:       120 |        120 |   _io
import time:      1500 |       2500 |     multiroot.vm.disk
import time:       500 |       3000 |   multiroot.vm
A line of something else
import time:       900 |       4000 | multiroot.agent.daemon
"""

# What only a root needs that starts another, or a workstation.
NOT_AT_ONCE = (
    "multiroot.cli",
    "multiroot.demo",
    "multiroot.kexec.x86",
    "multiroot.lab",
    "multiroot.launch.session",
    "multiroot.page",
    "multiroot.plan.planner",
    "multiroot.vmcore",
    "pydantic",
    "rich",
)


def test_what_python_prints_is_added_up() -> None:
    found = parse(TEXT)
    assert found[0] == Import("_io", 120)
    assert packages(found) == [
        Package("multiroot.vm", 2, 2000),
        Package("multiroot.agent", 1, 900),
        Package("_io", 1, 120),
    ]


# What only a root needs that has come up: whoever calls it waits until it is imported.
LATER = (
    "grpc_health.v1",
    "grpc_reflection.v1alpha",
    "multiroot.agent.parts",
    "multiroot.agent.watching",
    "multiroot.arena.arena",
    "multiroot.coordinator",
    "multiroot.handoff",
    "multiroot.passthrough",
    "multiroot.storage",
    "multiroot.vm",
    "multiroot.watch.facts",
    "multiroot.watch.teller",
    "prometheus_client",
    "pyroute2.ndb",
    "qemu",
)


def among(names: list[str], packages: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(f"{name}.".startswith(f"{each}.") for each in packages)]


def test_an_agent_imports_nothing_before_it_answers_that_can_wait() -> None:
    """Each module costs a new root's agent some 10 ms on an emulated CPU."""
    names = [each.name for each in measure(imports.AGENT)]
    assert "multiroot.agent.agent" in names
    assert among(names, (*NOT_AT_ONCE, *LATER)) == []


def test_an_agent_imports_nothing_at_all_that_it_may_never_need() -> None:
    names = [each.name for each in measure(imports.LATER)]
    assert among(names, NOT_AT_ONCE) == []
    # All that can wait is there by then, so the names above are right.
    assert [each for each in LATER if not among(names, (each,))] == ["prometheus_client", "pyroute2.ndb"]
