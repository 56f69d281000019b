# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab's state folder: what runs there, whether it is alive, what happened to it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiroot import processes
from multiroot.errors import BadRequestError
from multiroot.lab import paths
from multiroot.lab.lab_disks import LabDisk
from multiroot.lab.layout import Layout, Range
from multiroot.lab.machine import CPU_LOG, RESET_EVENTS, Machine, MachineDevice, token_file
from multiroot.lab.recorder import EVENTS_LOG, FEED_SOCKET
from multiroot.rpc.client import Address
from multiroot.rpc.token import make_token, read_token

_STATE = "lab.json"
_SOCKET_PATH_LIMIT = 107  # sun_path of unix(7), less its NUL


@dataclass(frozen=True)
class Attempt:
    """One boot: `outcome` is "ready" or why it was given up; `seconds` from QEMU's start.

    After one that is `final` the next would end in the same way.
    """

    outcome: str
    seconds: float
    final: bool = False


@dataclass
class LabState:
    """What `lab.json` holds. `started` (clock ticks since the host's boot) tells a reused pid from ours."""

    machine: Machine
    image_digest: str
    pid: int = 0
    started: int = 0
    recorder_pid: int = 0
    recorder_started: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.machine.state

    def save(self) -> None:
        data = dataclasses.asdict(self)
        path = self.folder / _STATE
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(data, default=str, indent=1) + "\n")
        partial.replace(path)

    @property
    def token(self) -> str:
        """What the machine's forwarded ports want to be told; raises MultirootError when it is not there."""
        return read_token(token_file(self.machine))

    @property
    def agent_address(self) -> Address:
        """Where the old root's agent answers on this workstation, and what it wants to be told."""
        return Address(self.agent_target, self.token)

    @property
    def agent_target(self) -> str:
        """Where the old root's agent answers on this workstation."""
        return _agent_target(self.machine.agent_port)

    def alive(self) -> bool:
        return _lives(self.pid, self.started)

    def events(self) -> list[dict[str, Any]]:
        """QMP events so far, oldest first."""
        path = self.folder / EVENTS_LOG
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def resets(self) -> int:
        """How often the machine was reset, which ends it (see `machine.qemu_argv`)."""
        return sum(
            event["event"] == "RESET" or event.get("data", {}).get("reason") == "guest-reset"
            for event in self.events()
        )

    def card_resets(self) -> int:
        """How often a network card of the machine was reset so far, by whatever means; QEMU's own account."""
        text = (self.folder / CPU_LOG).read_text(errors="replace")
        return sum(line.startswith(RESET_EVENTS) for line in text.splitlines())

    def ending(self) -> str:
        """Why the machine runs no more, in words; "" while it does."""
        reasons = [event["data"]["reason"] for event in self.events() if event["event"] == "SHUTDOWN"]
        # One that is held at its end has said so, and lives.
        if self.alive() and not reasons:
            return ""
        why = f" ({reasons[-1]})" if reasons else ""
        return f"the lab machine ended{why}, what its CPUs did last is in {self.folder / CPU_LOG}"

    def held(self) -> bool:
        """Whether it has come to its end and is kept there, paused (`lab up --hold`)."""
        return self.alive() and bool(self.ending())

    def retries(self) -> int:
        """Boots that had to be given up before the one that counts."""
        return sum(attempt.outcome != "ready" for attempt in self.attempts)


def folder(name: str) -> Path:
    """The state folder of the lab called `name`; raises BadRequestError for names that make no good
    folder.
    """
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise BadRequestError(f"not a name for a lab: {name!r}", "use letters, digits, '-', '_' and '.'")
    path = paths.state_path() / "labs" / name
    if not str(path).isprintable() or "%" in str(path):
        # QEMU takes % in the name of its log for a process id.
        raise BadRequestError(
            f"labs cannot be kept in {str(path)!r}",
            "choose an XDG_STATE_HOME of printable characters without %",
        )
    longest = len(os.fsencode(path)) + 1 + len(FEED_SOCKET) + len("serial-recorder")
    if longest > _SOCKET_PATH_LIMIT:
        shorter = "name" if len(name) > len("generations") else "XDG_STATE_HOME"
        raise BadRequestError(f"{path} is too long for sockets", f"choose a shorter {shorter}")
    return path


def load(name: str) -> LabState:
    """The lab called `name`; raises BadRequestError when there is none."""
    path = folder(name) / _STATE
    if not path.exists():
        raise BadRequestError(f"no lab called {name!r}", "'multiroot lab up' starts one")
    try:
        data = json.loads(path.read_text())
        attempts = [Attempt(**attempt) for attempt in data.pop("attempts")]
        return LabState(**{**data, "machine": _machine(data["machine"]), "attempts": attempts})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        hint = f"end its QEMU if it runs, then remove {path.parent}"
        raise BadRequestError(f"lab {name!r} was started by another version of multiroot", hint) from error


def load_alive(name: str) -> LabState:
    """Like `load`; raises BadRequestError also when the machine does not run."""
    state = load(name)
    if not state.alive():
        raise BadRequestError(f"lab {name!r} is not running", "'multiroot lab up' starts it again")
    return state


def names() -> list[str]:
    """All labs that left a state folder."""
    return sorted(path.parent.name for path in (paths.state_path() / "labs").glob(f"*/{_STATE}"))


def running() -> LabState | None:
    """The lab that runs: the only one, or the one called "default". BadRequestError if others do."""
    there = {name: target for name in names() if (target := _target(name))}
    if not there:
        return None
    if len(there) == 1 or "default" in there:
        return load("default" if "default" in there else next(iter(there)))
    which = ", ".join(f"{name} ({target})" for name, target in there.items())
    raise BadRequestError(f"several labs run: {which}", "say which: MULTIROOT_AGENT=127.0.0.1:PORT")


def at(target: str) -> LabState | None:
    """The running lab whose agent answers there."""
    return next((load(name) for name in names() if _target(name) == target), None)


def _target(name: str) -> str:
    """Where a lab's agent answers, whatever version of multiroot started it; "" if its QEMU does not run."""
    try:
        data = json.loads((folder(name) / _STATE).read_text())
        alive = _lives(int(data["pid"]), data["started"])
        return _agent_target(data["machine"]["agent_port"]) if alive else ""
    except (KeyError, TypeError, ValueError):
        # Cut short by a full disk or an end of the power: the machine did not survive it either.
        return ""


def _agent_target(port: int) -> str:
    return f"127.0.0.1:{port}"


def _lives(pid: int, started: int) -> bool:
    return bool(pid) and processes.start_time(pid) == started


def create(machine: Machine, image_digest: str) -> LabState:
    """An empty state folder for a machine about to start."""
    if machine.state.exists():
        shutil.rmtree(machine.state)
    paths.make_dir(machine.state)
    make_token(token_file(machine))
    paths.give_to_user(token_file(machine))
    state = LabState(machine, image_digest)
    state.save()
    return state


def _disk(data: dict[str, Any]) -> LabDisk:
    return LabDisk(Path(data["origin"]), Path(data["file"]), data["size"], tuple(data["copy"]))


def _machine(data: dict[str, Any]) -> Machine:
    layout = data["layout"]
    for name in ("arena", "carve", "image"):
        layout[name] = Range(**layout[name])
    layout["disks"] = tuple(Range(**place) for place in layout["disks"])
    for name in ("vmlinuz", "initrd", "image", "emulator", "emulator_mend", "state"):
        data[name] = Path(data[name])
    for name in ("old_cpus", "cmdline", "without"):
        data[name] = tuple(data[name])
    data["disks"] = tuple(_disk(disk) for disk in data["disks"])
    data["devices"] = tuple(MachineDevice(**device) for device in data["devices"])
    return Machine(**{**data, "layout": Layout(**layout)})
