# SPDX-License-Identifier: GPL-2.0-or-later
"""When a boot is ready and when it is given up."""

from __future__ import annotations

import pytest

from multiroot.lab.watchdog import Limits, Watchdog

SECOND = 1_000_000_000
START = 5000 * SECOND


def line(text: str, at: float, console: str = "old") -> dict[str, object]:
    return {"ns": START + int(at * SECOND), "console": console, "text": text}


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog(Limits(silence=10, total=60), START)


def at(seconds: float) -> int:
    return START + int(seconds * SECOND)


@pytest.mark.parametrize("marks", [("exec", "devices"), ("devices", "exec")])
def test_exec_service_and_devices_make_it_ready(watchdog: Watchdog, marks: tuple[str, str]) -> None:
    watchdog.take(line("[    0.000000] Linux version 6.12", 1))
    watchdog.take(line(f"multiroot: mark {marks[0]} 6.07", 6))
    assert watchdog.verdict(at(6)) is None
    watchdog.take(line(f"[    6.99] tun: loaded multiroot: mark {marks[1]} 7.00", 7))
    assert watchdog.verdict(at(7)) == "ready"
    assert watchdog.verdict(at(100)) == "ready"


def test_the_other_roots_console_does_not_count(watchdog: Watchdog) -> None:
    for mark in ("exec", "devices"):
        watchdog.take(line(f"multiroot: mark {mark} 6.07", 7, "new"))
    watchdog.take(line("Kernel panic - not syncing: x", 7, "new"))
    assert watchdog.verdict(at(8)) is None


@pytest.mark.parametrize(
    "text",
    [
        "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "initramfs: no persistent memory holds a system image",
    ],
)
def test_fatal_lines_end_it_at_once(watchdog: Watchdog, text: str) -> None:
    watchdog.take(line(text, 3))
    assert watchdog.verdict(at(3)) == f"console: {text}"


def test_silence_ends_it_and_every_line_puts_that_off(watchdog: Watchdog) -> None:
    watchdog.take(line("a", 9))
    assert watchdog.verdict(at(18.9)) is None
    assert watchdog.deadline_ns() == at(19)
    assert watchdog.verdict(at(19)) == "not ready after 19 s, silent for 10 s"


def test_talking_for_ever_ends_it_too(watchdog: Watchdog) -> None:
    for second in range(0, 60, 5):
        watchdog.take(line("still here", second))
        assert watchdog.verdict(at(second)) is None
    assert watchdog.verdict(at(60)) == "not ready after 60 s, silent for 5 s"


@pytest.mark.parametrize(
    ("event", "data", "says"),
    [
        ("SHUTDOWN", {"guest": True, "reason": "guest-reset"}, "the machine ended (shutdown guest-reset)"),
        ("GUEST_PANICKED", {}, "the machine ended (guest_panicked)"),
        ("EXIT", {}, "the machine ended (exit)"),
        ("NIC_RX_FILTER_CHANGED", {}, None),
    ],
)
def test_events(watchdog: Watchdog, event: str, data: dict[str, object], says: str | None) -> None:
    watchdog.take({"ns": at(1), "event": event, "data": data})
    assert watchdog.verdict(at(1)) == says


@pytest.mark.parametrize(("spoken", "then"), [(None, None), (25.0, 50.0)])
def test_limits_of_a_slower_kernel(spoken: float | None, then: float | None) -> None:
    assert Limits(60.0, 600.0, spoken).of_slower(2) == Limits(120.0, 1200.0, then)
