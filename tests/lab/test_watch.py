# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching real roots: what is told of a launch, a handoff and a stopped agent is what really was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import terminal
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import guests
from multiroot.lab import agents, watching
from multiroot.lab.starvation import Starvation
from multiroot.rpc import client
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.ticks import gap_around
from multiroot.watch.background import InBackground
from multiroot.watch.events import Event, Points, State
from multiroot.watch.facts import CpuState, Facts, MemoryKind, RootState, Stage
from multiroot.watch.recording import Recorder, Recording
from multiroot.watch.view import View

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

SEEN_S = 120.0  # on a busy computer
LAUNCH_S = 600.0
CTRL_C = 130
# The brackets keep it from finding itself.
STOP, GO_ON = (f"pkill -{signal} -f '[/]usr/bin/multirootd'" for signal in ("STOP", "CONT"))


class Seen:
    """What was told: each owner of the VM and each state of the roots, in order."""

    def __init__(self) -> None:
        self.owners: list[tuple[int, int]] = []
        self.states: dict[str, list[RootState]] = {}
        self.unknown_after: list[int] = []  # ns of silence
        self.view = View()
        self.ticks: list[tuple[int, int, int]] = []

    def hear(self, event: Event, view: View) -> None:
        self.view.apply(event)
        if isinstance(event, Points):
            self.ticks += [point for point in event.points.get("ticks/web", []) if len(point) == 3]
            return
        facts = view.facts
        if vm := facts.vms.get("web"):
            owner = (vm.owner, vm.epoch)
            if vm.owner and self.owners[-1:] != [owner]:
                self.owners.append(owner)
        for number, root in facts.roots.items():
            states = self.states.setdefault(number, [])
            if states[-1:] != [root.state]:
                states.append(root.state)
                if root.state is RootState.UNKNOWN:
                    self.unknown_after.append(event.at - root.heard_ns)


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A lab of its own with a VM that ticks."""
    lab = labs_factory.fresh(kernel="6.12", vms=1)
    found = Cli(lab)
    found.ok("vm", "run", "web", "--memory", "256M")
    with client.connect(lab.agent_address, root="old") as old:
        agents.ticks(old, "web", 10, guests.BOOT_TIMEOUT)
    yield found
    labs_factory.discard(lab)


@contextmanager
def watched(cli: Cli, record: Path) -> Iterator[tuple[InBackground, Seen]]:
    seen = Seen()
    with Recorder(record, "A launch and a handoff") as recorder:

        def hear(event: Event, view: View) -> None:
            recorder.write(event)
            seen.hear(event, view)

        with InBackground(lambda: watching.collector(cli.lab.state), hear) as watcher:
            yield watcher, seen


def root_is(number: str, state: RootState) -> Callable[[Facts], bool]:
    return lambda facts: number in facts.roots and facts.roots[number].state is state


def vm_row(cli: Cli) -> dict[str, Any]:
    """What `vm list` says."""
    rows = cli.data("vm", "list")
    assert isinstance(rows, list)
    return next(row for row in rows if row["name"] == "web")


def test_a_handoff_is_told_from_beginning_to_end_and_the_figures_are_those_of_the_commands(
    cli: Cli, tmp_path: Path
) -> None:
    """Proves that what a watcher is told of a launch and a handoff is what `vm list`, `handoff --json` and
    the consoles say, that the owner word flips once, and that the recording of it says the same.
    """
    record = tmp_path / "run.mrlog"
    with watched(cli, record) as (watcher, seen):
        facts = watcher.wait(root_is("1", RootState.ALIVE), SEEN_S, "root 1 was not seen")
        assert facts.machine.resets == 0
        assert {cpu.root for cpu in facts.cpus.values()} == {1}
        before = vm_row(cli)
        assert (facts.vms["web"].owner, facts.vms["web"].epoch) == (before["owner"], before["epoch"])

        launched = cli.data("root", "launch", "--kernel", "6.12")
        assert isinstance(launched, dict)
        new = str(launched["root"])
        facts = watcher.wait(root_is(new, RootState.ALIVE), LAUNCH_S, "the new root was not seen")
        assert facts.update.state == "joined"
        assert all(
            facts.update.steps[name].edge == "done"
            for name in ("plan", "carve", "offline", "load", "start", "join")
        )
        assert {cpu.state for cpu in facts.cpus.values() if cpu.root == int(new)} == {CpuState.ONLINE}
        carves = [each for each in facts.memory.values() if each.kind is MemoryKind.CARVE]
        assert [each.root for each in carves] == [int(new)]

        told = cli.data("handoff", "web")
        assert isinstance(told, dict)
        key = f"web/{told['epoch']}"
        facts = watcher.wait(
            lambda f: (
                key in f.handoffs and f.handoffs[key].stage is Stage.DONE and f.handoffs[key].gap_ns > 0
            ),
            SEEN_S,
            "the handoff was not seen to its end",
        )
        handoff = facts.handoffs[key]
        for name in ("stopped_ns", "resumed_ns", "device_state_bytes", "ram_bytes_copied", "epoch"):
            assert getattr(handoff, name) == told[name], name
        assert (handoff.giver, handoff.taker) == (1, int(new))
        row = vm_row(cli)
        facts = watcher.wait(lambda f: f.vms["web"].state == "running", SEEN_S, "web was not seen to run")
        assert (facts.vms["web"].owner, facts.vms["web"].epoch) == (row["owner"], row["epoch"])
        assert seen.owners == [(1, before["epoch"]), (int(new), told["epoch"])]
        assert facts.machine.resets == 0
        _compare_with_the_consoles(cli, seen, handoff.stopped_ns, handoff.resumed_ns, handoff.gap_ns)
    _replays(record, facts)


def _compare_with_the_consoles(cli: Cli, seen: Seen, stopped_ns: int, resumed_ns: int, gap_ns: int) -> None:
    """Each tick is told once, and the gap is that of both roots' own accounts, joined."""
    counters = [counter for _, counter, _ in seen.ticks]
    assert sorted(counters) == list(range(min(counters), max(counters) + 1))
    with client.connect(cli.lab.agent_address, root="old") as old:
        here = ticks_from_proto(agents.ticks(old, "web", 0, agents.CALL_TIMEOUT_S))
    with client.connect(cli.lab.agent_address, root="new") as new:
        there = ticks_from_proto(agents.ticks(new, "web", 0, agents.CALL_TIMEOUT_S))
    exact = gap_around(here.then(there).ticks, stopped_ns, resumed_ns)
    # Each look measures anew how far the console's clock and the machine's are apart.
    assert gap_ns == pytest.approx(exact, abs=5_000_000)


def _replays(record: Path, facts: Facts) -> None:
    view = View()
    for event in Recording(record).events():
        assert view.at or isinstance(event, State)
        view.apply(event)
    assert view.facts.handoffs == facts.handoffs
    assert view.facts.roots.keys() == facts.roots.keys()


def test_an_agent_that_is_stopped_is_unknown_within_a_second(cli: Cli, tmp_path: Path) -> None:
    """Proves that what a silent agent said last is not taken for what is, by the collector's own stamps, and
    that its root is alive again when it goes on. On a busy computer agents may be silent by themselves.
    """
    with watched(cli, tmp_path / "stopped.mrlog") as (watcher, seen):
        facts = watcher.wait(
            lambda f: len([r for r in f.roots.values() if r.state is RootState.ALIVE]) == 2,
            SEEN_S,
            "two roots were not seen",
        )
        new = max(facts.roots, key=int)
        machine = Starvation(cli.lab.state.pid)
        cli.lab.run(["sh", "-c", STOP], root="new")
        try:
            facts = watcher.wait(root_is(new, RootState.UNKNOWN), SEEN_S, "it was not seen to be silent")
            starved_ns = int(machine.seconds() * 1e9)
            assert facts.vms["web"].state == "unknown"
        finally:
            cli.lab.run(["sh", "-c", GO_ON], root="new")
        watcher.wait(root_is(new, RootState.ALIVE), SEEN_S, "it was not seen to be back")
        facts = watcher.wait(
            lambda f: f.vms["web"].state == "running", SEEN_S, "its VM was not seen to be back"
        )
    # A second of the machine's own time. A busy workstation may be late to look, but not each time.
    assert min(seen.unknown_after) < 1_000_000_000 + starved_ns


def said_in_a_root(cli: Cli, root: str, size: str, words: str) -> str:
    """What `multiroot watch` says inside a root until it has said that, and then ends by Ctrl-C."""
    script = (Path(__file__).parent / "guest/until_said.py").read_text()
    argv = ["python3", "-c", script, size, words, "multiroot", "watch"]
    done = cli.lab.run(argv, root=root, timeout=SEEN_S)
    assert done.returncode == CTRL_C, done
    return done.stdout


@pytest.mark.parametrize("root", ["old", "new"])
def test_in_a_root_it_is_a_screen_of_80x24_and_lines_where_there_is_no_terminal(cli: Cli, root: str) -> None:
    """Proves that `multiroot watch` works inside a root, on a terminal of the usual size and without one."""
    drawn = said_in_a_root(cli, root, f"{terminal.WIDTH}x{terminal.HEIGHT}", "RUNNING")
    pictures = terminal.screens(drawn)
    assert pictures, drawn
    assert all(map(terminal.fits, pictures))
    last = "\n".join(pictures[-1])
    # Nobody in the machine can tell how often it was reset.
    for words in ("ONE MACHINE", "resets: not known", "root 1", "ALIVE", "VM web", "RUNNING", "memory"):
        assert words in last, last
    told = said_in_a_root(cli, root, "-", "VM web is running")
    assert "\x1b" not in told
    owner, epoch = vm_row(cli)["owner"], vm_row(cli)["epoch"]
    # The VM is in the new root. What is told first is what the root itself knows.
    mine = 1 if root == "old" else owner
    assert re.search(rf"^ +\d+\.\d{{3}} s  root {mine} \(.*\) is alive$", told, re.MULTILINE), told
    assert f"VM web is running, owned by root {owner}, epoch {epoch}\n" in told


def test_an_agent_that_is_asked_to_tells_prometheus(cli: Cli) -> None:
    """Proves that `multirootd --metrics` answers inside a root, with what `vm list` says."""
    asked = "s,/usr/bin/multirootd,& --metrics 127.0.0.1:9100,"
    start = "/usr/lib/multiroot/agent"
    # Whoever starts agents starts the next one with it, too.
    script = (
        f"sed '{asked}' {start} >/run/agent && chmod +x /run/agent && mount --bind /run/agent {start}"
        " && pkill -o -f '[/]usr/bin/multirootd'"
    )
    assert cli.lab.run(["sh", "-c", script]).returncode == 0
    # Nobody tells when it answers.
    ask = (
        "import time, urllib.request\n"
        "while True:\n"
        "    try:\n"
        "        print(urllib.request.urlopen('http://127.0.0.1:9100/metrics').read().decode())\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.5)\n"
    )
    told = cli.lab.run(["python3", "-c", ask], timeout=SEEN_S).stdout
    (epoch,) = re.findall(r'^multiroot_vm_epoch\{vm="web"\} ([\d.e+]+)$', told, re.MULTILINE)
    assert float(epoch) == vm_row(cli)["epoch"]
    assert 'multiroot_root_info{kernel="6.12' in told
