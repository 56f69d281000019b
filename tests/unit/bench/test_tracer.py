# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracepoints are switched on and off in roots whose kernels do not all have the same."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiroot import arch
from multiroot.bench import tracer
from multiroot.bench.results import qemu_trace, vcpu_events
from multiroot.bench.tracer import Recorded, Tracer
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase
from multiroot.vm.qemu import own_trace

EVERYWHERE = ("multiroot", *vcpu_events.EVENTS)


class Roots:
    """A lab whose roots are folders."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def make(self, root: str, *events: str) -> None:
        for event in events:
            folder = self._base / root / "events" / event
            folder.mkdir(parents=True)
            (folder / "enable").write_text("0\n")
        (self._base / root / "trace").touch()

    def run(self, argv: list[str], root: str) -> Any:
        here = str(self._base / root)
        command = argv[-1].replace("/sys/kernel/tracing", here).replace(str(own_trace.FOLDER), f"{here}/qemu")
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    def on(self, root: str) -> set[str]:
        """The events that are."""
        events = self._base / root / "events"
        return {
            str(file.parent.relative_to(events))
            for file in events.rglob("enable")
            if file.read_text() == "1\n"
        }


def made(roots: Roots, *names: str) -> Tracer:
    lab: Any = roots
    agents: Any = SimpleNamespace(status=lambda root: SimpleNamespace(root=1, tsc_khz=1_000_000))
    return Tracer(lab, agents, names, "vm0")


def test_a_kernel_that_lacks_events_goes_without_them(tmp_path: Path) -> None:
    roots, more = Roots(tmp_path), arch.current().exits.events
    roots.make("old", *EVERYWHERE)
    roots.make("new", *EVERYWHERE, *more)
    both = made(roots, "old", "new")
    both.start()
    assert roots.on("old") == {*EVERYWHERE}
    assert roots.on("new") == {*EVERYWHERE, *more}
    assert (tmp_path / "new/qemu").is_dir()
    for root in ("old", "new"):
        (tmp_path / root / "trace").write_text(f"of {root}\n")
    (tmp_path / "old/qemu/save-vm0").write_text("a line\n")
    assert both.take() == {"new": Recorded("of new\n", "", ""), "old": Recorded("of old\n", "a line\n", "")}
    assert roots.on("old") == roots.on("new") == set()
    assert not (tmp_path / "new/qemu").exists()


def test_what_was_not_started_is_not_ended(tmp_path: Path) -> None:
    roots = Roots(tmp_path)
    roots.make("old", *EVERYWHERE)
    tracer = made(roots, "old", "new")
    tracer.start_in("old")
    assert [*tracer.take()] == ["old"]
    assert tracer.take() == {}


def test_a_root_that_cannot_trace_says_so(tmp_path: Path) -> None:
    with pytest.raises(tracer.CommandError, match="cannot trace in the old root"):
        made(Roots(tmp_path), "old").start()


def test_what_qemu_recorded_is_told_from_the_stop_on() -> None:
    line = "vmstate_downtime_save type=non-iterable idstr=cpu instance_id=0 downtime=52\n"
    phases = [Phase(PhaseName.SAVE_DEVICE_STATE, "", 500, 20, blackout=True)]
    (mark,) = made(Roots(Path("/")), "old").marks({"old": Recorded("", line, "")}, phases, [], "old")
    assert (mark.name, mark.side, mark.start_ns, mark.duration_ns) == ("cpu", qemu_trace.SAVED, 500, 52_000)
