# SPDX-License-Identifier: GPL-2.0-or-later
"""What the Debian of the demo has for a disk, by each way in which all roots reach one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from multiroot import proc
from multiroot.errors import CommandError
from multiroot.lab import disk_image, lab, lab_disks, roots, seed
from multiroot.lab.execution import Result
from multiroot.lab.lab import Lab
from multiroot.lab.nbd_server import NbdServer
from multiroot.phases import Phases
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.seed import CLOUD_CONFIG

IMAGE, NAME = "debian-13", "deb"
PMEM, NBD, LOCAL = KINDS = ("pmem", "nbd", "local")
_CHECK_S = 900.0
# Of the machine with a disk of its own, where the guest's disk is a file.
_MACHINE, _FOLDER = "large-disk", "/mnt"
_FILE = f"{_FOLDER}/{NAME}.raw"
# Into an empty disk; what is zero takes no room.
_PUT = f"mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda {_FOLDER} && cp --sparse=always {{}} {_FILE} && sync"


class GuestDisk(ABC):
    """The guest's disk: at first a copy of the image, in the file `image`, with a new key to log in by."""

    def __init__(self, folder: Path, phases: Phases, stack: ExitStack) -> None:
        """It is there until `stack` ends, which is after the machine."""
        cache = lab.cache(phases)
        self.tools = disk_image.tools(cache)
        self.image = folder / "disk.raw"
        self.key = folder / "key"
        disk_image.copy_to(disk_image.build(IMAGE, cache) / disk_image.DISK, self.image, phases)
        proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "multiroot demo", "-f", self.key])

    @property
    def public_key(self) -> str:
        """Whose private one is `key`."""
        return self.key.with_suffix(".pub").read_text().strip()

    @abstractmethod
    def machine(self, options: lab.Options) -> lab.Options:
        """The lab machine in which there is that disk."""

    @abstractmethod
    def provide(self, machine: Lab) -> list[vm_pb2.Disk]:
        """Have it there, once; what the VM has, the disk first."""

    @property
    def user_data(self) -> str:
        """What cloud-init in the guest is told, if it does not hear it from a disk of ours."""
        return f'{CLOUD_CONFIG}\nssh_authorized_keys: ["{self.public_key}"]\n'

    def check(self, machine: Lab, root: str) -> tuple[bool, str]:
        """Whether e2fsck finds nothing, and its last line; nobody writes to the disk any more. `root` is the
        one that there is.
        """
        return said_by(proc.run(self.e2fsck("-fn"), check=False, timeout=_CHECK_S))

    def e2fsck(self, flags: str) -> list[str]:
        """The command that checks the root file system in the disk."""
        return [*roots.loader_argv(self.tools, "sbin/e2fsck"), flags, f"{self.image}?offset={self.offset()}"]

    def offset(self) -> int:
        """Where in the disk the guest's root file system begins, bytes."""
        start, _ = disk_image.lay_out(self.image.stat().st_size).root
        return start


def said_by(done: proc.Completed | Result) -> tuple[bool, str]:
    """Whether a check found nothing, and its last line."""
    *_, last = (done.stdout or done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    return done.returncode == 0, last


class PmemDisk(GuestDisk):
    """Both the disk and a seed are the lab machine's persistent memory."""

    def __init__(self, folder: Path, phases: Phases, stack: ExitStack) -> None:
        super().__init__(folder, phases, stack)
        self._seed = folder / "seed.raw"
        seed.write_image(seed.make_seed(NAME, [self.public_key]), self._seed)

    def machine(self, options: lab.Options) -> lab.Options:
        return replace(options, disks=(str(self.image), str(self._seed)))

    def provide(self, machine: Lab) -> list[vm_pb2.Disk]:
        disk, seeded = pmem(machine)
        return [vm_pb2.Disk(source=disk), vm_pb2.Disk(source=seeded, read_only=True)]

    @property
    def user_data(self) -> str:
        return ""


class NbdDisk(GuestDisk):
    """A server on the workstation has it."""

    def __init__(self, folder: Path, phases: Phases, stack: ExitStack) -> None:
        super().__init__(folder, phases, stack)
        self._server = NbdServer(self.tools, self.image)
        stack.callback(self._server.close)
        self._server.start()

    def machine(self, options: lab.Options) -> lab.Options:
        return options

    def provide(self, machine: Lab) -> list[vm_pb2.Disk]:
        return [vm_pb2.Disk(source=self._server.source)]


class LocalDisk(GuestDisk):
    """A file on the machine's own disk, which is adopted by the new root when the old one has retired.

    `file` is its path in the root that has the disk.
    """

    file = _FILE

    def machine(self, options: lab.Options) -> lab.Options:
        return replace(options, machine=_MACHINE, disks=(str(self.image),))

    def provide(self, machine: Lab) -> list[vm_pb2.Disk]:
        (origin,) = pmem(machine)
        listed = json.loads(_output(machine, ["multiroot", "disk", "list", "--json"]))
        (node,) = (each["node"] for each in listed if each["source"] == origin)
        _output(machine, ["sh", "-c", _PUT.format(node)])
        return [vm_pb2.Disk(source=f"local:{_FILE}")]

    def check(self, machine: Lab, root: str) -> tuple[bool, str]:
        argv = ["e2fsck", "-fn", f"{_FILE}?offset={self.offset()}"]
        return said_by(machine.run(argv, root=root, timeout=_CHECK_S))


def _output(machine: Lab, argv: list[str]) -> str:
    """What a command in the old root prints; raises CommandError unless it ends with 0."""
    done = machine.run(argv, timeout=_CHECK_S)
    if done.returncode:
        raise CommandError(f"{proc.quote(argv)}: exit code {done.returncode}", done.stderr.strip())
    return done.stdout


MADE_BY: dict[str, type[GuestDisk]] = {PMEM: PmemDisk, NBD: NbdDisk, LOCAL: LocalDisk}


def pmem(machine: Lab) -> Sequence[str]:
    """The lab machine's disks as VMs know them."""
    return lab_disks.sources(machine.state.machine.layout)
