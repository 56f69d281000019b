# SPDX-License-Identifier: GPL-2.0-or-later
"""What a firmware needs beside the VMM: UEFI's code, and its variables, which it writes to.

The variables are a file in the VM's folder while it runs. In a handoff they travel with the device state: the
VMM has them in memory, and writes them to the taker's file when the guest goes on there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from multiroot.errors import BadRequestError
from multiroot.vm.definition import OVMF, VmDefinition

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
TEMPLATE = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")  # variables of a machine that has never been started
_FILE = "variables.fd"


class VariableStore(Protocol):
    """Keeps the variables of VMs that do not run."""

    def load(self, vm: str) -> bytes | None:
        """Those that were stored last, None if there are none."""

    def store(self, vm: str, content: bytes) -> None:
        """Keep them."""


def variables(folder: Path) -> Path:
    """The file with a VM's variables, in its folder."""
    return folder / _FILE


def check(firmware: str) -> None:
    """Raises BadRequestError if this root lacks that firmware."""
    if firmware == OVMF and not CODE.exists():
        raise BadRequestError(f"this root has no UEFI firmware: no file {CODE}", "apt-get install ovmf")


def provide(definition: VmDefinition, folder: Path, store: VariableStore | None) -> None:
    """Put the variables into the VM's folder, as they were stored or as a new machine has them."""
    if definition.firmware != OVMF:
        return
    fresh = TEMPLATE.read_bytes()
    kept = store.load(definition.name) if store else None
    # What another version of the firmware has left may have another size, with which the VMM does not start.
    first = kept if kept is not None and len(kept) == len(fresh) else fresh
    for file in (variables(folder), _provided(folder)):
        file.write_bytes(first)


def keep(definition: VmDefinition, folder: Path, store: VariableStore | None) -> None:
    """Store what the VM's firmware has written in this root, when its VMM has ended.

    If that is nothing, what is stored stays: a root that the VM was handed on from may have written later.
    """
    file = variables(folder)
    if store and definition.firmware == OVMF and file.exists():
        content = file.read_bytes()
        if content != _provided(folder).read_bytes():
            store.store(definition.name, content)


def _provided(folder: Path) -> Path:
    """What a VM's variables were when its VMM was started here."""
    return folder / "provided.fd"
