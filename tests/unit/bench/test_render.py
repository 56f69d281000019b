# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as data and tables."""

from __future__ import annotations

import json
from dataclasses import replace

from multiroot.bench.results import render
from multiroot.bench.results.samples import Header, Run, Sample
from multiroot.bench.results.view import View

RUN = Run(
    Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {}, 0.1, 1, {}),
    (
        Sample("ours", 0, {"blackout_ns": 60e6, "sent_bytes": 240_000}),
        Sample("floor", 0, {"blackout_ns": 50e6}),
        Sample("ours", 1, {"blackout_ns": 80e6}),
        Sample("floor", 1, {"blackout_ns": 50e6}),
        Sample("copy", 0, failed="no end"),
    ),
    {"other": "not here"},
)


def test_as_data() -> None:
    data = json.loads(json.dumps(render.to_json(RUN, View("blackout_ns", "floor", "ours", ()))))
    assert data["summary"]["ours"]["blackout_ns"]["median"] == 70e6
    assert data["summary"]["copy"] == {}
    assert data["ratios"]["of"]["ours"]["value"] == 1.4
    assert data["ratios"]["of"].keys() == {"ours"}
    assert data["skipped"] == {"other": "not here"}
    assert [failed["contender"] for failed in data["failed"]] == ["copy"]
    assert any("few" in warning for warning in data["noise"])


def test_ratios_are_between_contenders_with_the_same_kind_of_vm() -> None:
    values = {
        "ours, 1 GiB": 30.0,
        "floor, 1 GiB": 10.0,
        "ours, 2 GiB": 50.0,
        "floor, 2 GiB": 25.0,
        "other": 20.0,
    }
    run = replace(RUN, samples=tuple(Sample(name, 0, {"blackout_ns": at}) for name, at in values.items()))
    found = {name: each.value for name, each in render.ratios(run, "blackout_ns", "floor").items()}
    assert found == {"ours, 1 GiB": 3.0, "ours, 2 GiB": 2.0}
    assert run.any_kind("ours") == "ours, 1 GiB"
    assert run.any_kind("other") == "other"


def test_as_tables() -> None:
    _, rows = render.summary_table(RUN, ("blackout_ns", "sent_bytes"))
    assert rows[0] == ("ours", "blackout, ms", "70.0", "79.0", "60.0", "80.0", "2")
    assert rows[1][:3] == ("ours", "sent, bytes", "240000")
    assert render.ratio_table(RUN, "blackout_ns", "floor")[1] == [("ours", "1.40", "1.20 - 1.60")]
    assert render.ratio_table(RUN, "blackout_ns", "nobody")[1] == []


def test_the_worst_of_the_clocks_is_named() -> None:
    run = replace(RUN, samples=())
    assert render.clocks(run) == ""
    seen = [(3.0, 900.0), (-40.4, 500.0), (12.0, 700.0)]
    samples = tuple(Sample("clocks", 0, {"apart_us": apart, "bound_us": bound}) for apart, bound in seen)
    assert "-40 µs apart" in render.clocks(replace(RUN, samples=samples))
    assert "than 500 µs" in render.clocks(replace(RUN, samples=samples))
