# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe of `bench link`, its two ends in one process, and what is made of its answer."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from multiroot.bench import link
from multiroot.bench.in_root import probe
from multiroot.bench.results import render

LOCALHOST = "127.0.0.1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> threading.Thread:
    """Answers one connection."""
    listening = probe.listen(LOCALHOST, port=0)
    monkeypatch.setattr(probe, "PORT", listening.getsockname()[1])

    def answer() -> None:
        with closing(listening):
            probe.serve_one(listening)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_every_ping_comes_back(server: threading.Thread) -> None:
    trips = probe.ping(LOCALHOST, 20)
    server.join()
    assert len(trips) == 20
    assert all(trip > 0 for trip in trips)


def test_a_stream_is_counted_where_it_arrives(server: threading.Thread) -> None:
    seen = probe.stream(LOCALHOST, seconds=0.05)
    server.join()
    assert seen["bytes"] >= probe.CHUNK
    assert seen["bytes"] % probe.CHUNK == 0
    assert seen["took_ns"] >= 50_000_000


def test_busy_is_all_but_idle_and_waiting(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 5000 600 7 8 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\n")
    assert probe.busy_ns(stat) == 165 * 10**9 // probe._CLOCK_TICKS


@pytest.mark.parametrize(("one_root", "per_kb"), [(False, 3000.0), (True, 2000.0)])
def test_what_one_root_does_at_both_ends_counts_once(one_root: bool, per_kb: float) -> None:
    stream = {"bytes": 10**6, "took_ns": 10**8, "here_ns": 2 * 10**6, "there_ns": 10**6}
    values = link.network_values({"rtt_ns": [1000, 2000, 3000], "stream": stream}, one_root=one_root)
    assert values[link.CPU] == per_kb
    assert values[link.RTT] == 2.0
    assert values[link.STREAM] == 10.0


@pytest.mark.parametrize(
    ("metric", "value", "title", "figure"),
    [
        ("blackout_ns", 1.5e6, "blackout, ms", "1.5"),
        ("rtt_p50_us", 12.34, "rtt p50, µs", "12.3"),
        ("stream_mb_per_s", 250.4, "stream, MB/s", "250"),
        ("cpu_ns_per_kb", 3.0, "cpu, ns per kB", "3"),
        ("missing_ticks", 0.0, "missing ticks", "0"),
    ],
)
def test_metrics_are_shown_in_their_unit(metric: str, value: float, title: str, figure: str) -> None:
    assert (render.title(metric), render.figure(metric, value)) == (title, figure)
