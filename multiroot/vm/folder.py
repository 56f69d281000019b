# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a root keeps of a running VM, by which a restarted agent finds the VM again."""

from __future__ import annotations

import errno
import shlex
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multiroot import json_files
from multiroot.arena.layout import Owner
from multiroot.processes import ProcessId
from multiroot.vm.definition import VmDefinition
from multiroot.vm.fields import from_data
from multiroot.vm.history import read_history
from multiroot.vm.iscsi_login import Login
from multiroot.vm.notices import Notice
from multiroot.vm.vmm import DiskLogin

RUN_DIR = Path("/run/multiroot/vms")


@dataclass(frozen=True)
class VmRecord:
    """Written when a VM starts or changes hands; `giver` is the owner an incoming VM is to be taken from."""

    definition: VmDefinition
    vmm: str
    vmm_version: str
    process: ProcessId
    taps: tuple[str, ...]
    giver: Owner | None = None
    notices: tuple[Notice, ...] = ()
    stations: dict[str, str] = field(default_factory=dict)
    paused: bool = False
    untouched: bool = False
    cpu: str = ""


class VmFolder:
    """The folder of one VM below the run directory."""

    def __init__(self, base: Path, name: str) -> None:
        self.path = base / name
        self.console = self.path / "console.sock"
        self.console_record = self.path / "console.rec"
        self.console_log = self.path / "console.log"
        self.vmm_log = self.path / "vmm.log"
        self.seed = self.path / "seed.img"
        self._record = self.path / "vm.json"

    def make(self) -> None:
        """An empty folder, whatever was there before."""
        self.remove()
        self.path.mkdir(parents=True, mode=0o700)

    def remove(self) -> None:
        """Delete it with all that was kept.

        Under another name, because a console keeper that is just starting would make its file in the middle
        of that. What an agent left half deleted goes with the next time.
        """
        if self.path.exists():
            doomed = self.path.with_name(f".{self.path.name}")
            shutil.rmtree(doomed, ignore_errors=True)
            self.path.rename(doomed)
            try:
                shutil.rmtree(doomed)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                # By a keeper that had found the folder under its old name. It makes one file, and only once.
                shutil.rmtree(doomed)

    def keep_login(self, number: int, login: Login) -> DiskLogin:
        """For the VMM, of disk `number`."""
        path = self.path / f"disk{number}.password"
        path.touch(mode=0o600)
        path.write_text(login.password)
        return DiskLogin(login.user, path)

    def write(self, record: VmRecord) -> None:
        """Replace the record in one step."""
        json_files.write(self._record, asdict(record))

    def read(self) -> VmRecord | None:
        """The record, None if the VM never came up. Raises MultirootError for one that is damaged."""
        hint = f"end its VMM if it runs, then `rm -r {shlex.quote(str(self.path))}`"
        return json_files.read(self._record, dict, _record, hint)

    def last_words(self) -> str:
        """The end of what the VMM said on its own outputs."""
        return last_words(self.vmm_log)

    def guest_words(self) -> str:
        """The end of what the guest said on its console."""
        said = b"".join(piece.data for piece in read_history(self.console_record))
        return _end(said.decode(errors="replace"))


def _record(data: dict[str, Any]) -> VmRecord:
    return VmRecord(
        definition=from_data(data["definition"], VmDefinition),
        vmm=str(data["vmm"]),
        vmm_version=str(data["vmm_version"]),
        process=from_data(data["process"], ProcessId),
        taps=tuple(str(tap) for tap in data["taps"]),
        giver=from_data(data["giver"], Owner) if data["giver"] else None,
        notices=tuple(from_data(each, Notice) for each in data["notices"]),
        stations={str(mac): str(address) for mac, address in dict(data["stations"]).items()},
        paused=bool(data.get("paused", False)),
        untouched=bool(data.get("untouched", False)),
        cpu=str(data.get("cpu", "")),
    )


def last_words(log: Path) -> str:
    """The end of what is in a log; empty if there is none."""
    return _end(log_text(log))


def log_text(log: Path) -> str:
    """All that is in a log; empty if there is none."""
    try:
        return log.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _end(text: str, lines: int = 3) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(said[-lines:])


def folders(base: Path) -> list[str]:
    """Names of the VMs that have a folder below `base`."""
    return sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
