# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's disks, in words that mean the same in every root; pure."""

from __future__ import annotations

import hashlib
import ipaddress
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multiroot.errors import BadRequestError
from multiroot.ranges import PHYS_BITS
from multiroot.vm import iscsi_target
from multiroot.vm.fields import Option, check_given_once
from multiroot.vm.iscsi_target import IscsiTarget

BUSES = ("virtio-blk", "virtio-scsi", "cd")
RAW, QCOW2 = FORMATS = ("raw", "qcow2")
MOST = 8
_PATH_MOST = 200  # characters; a request's text has 256
NBD_PORT = 10809
DISK_NAME = "disk"  # what a file's server calls it
DOORS = Path("/run/multiroot/disks")  # where a root's VMMs reach files that a root serves
_PMEM = re.compile(r"pmem:0x([0-9a-f]{1,13})")
# As QEMU's manual writes it, or as a URI (github.com/NetworkBlockDevice/nbd: doc/uri.md). An address, not a
# name: what a name means is each root's own affair.
_NBD = re.compile(
    r"nbd:(?P<url>//)?(?P<host>\[[0-9a-f:.]+\]|[0-9.]+)(:(?P<port>[0-9]{1,5}))?(/(?P<export>.*))?"
)
_EXPORT = re.compile(r"[A-Za-z0-9._~/-]{0,255}")
_LOCAL = "local:"
_SAID = {"initiator": "an initiator", "login": "a login"}
_FILE = re.compile(
    r"file:.*|[./~].*|(?!nbd:|pmem:|iscsi:).*(/.*|\.(raw|img|qcow2|iso|vmdk|vdi|vhdx))", re.DOTALL
)


@dataclass(frozen=True)
class NbdServer:
    """Who serves a disk by NBD: an IP address, a port, the server's name for the disk, which may be empty."""

    host: str
    port: int
    export: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nbd://{host}:{self.port}/{self.export}"


@dataclass(frozen=True)
class LocalFile:
    """A file on a disk of the machine, served by whichever root has that disk."""

    path: str
    export: str = DISK_NAME

    @property
    def door(self) -> Path:
        """The socket where this root's VMMs reach it. NBD is spoken there."""
        return DOORS / f"{hashlib.blake2b(self.path.encode(), digest_size=8).hexdigest()}.sock"

    @property
    def away(self) -> Path:
        """Is there while this root has found nobody who serves the file, and says why."""
        return self.door.with_suffix(".away")

    def __str__(self) -> str:
        return f"{_LOCAL}{self.path}"


Outside = NbdServer | IscsiTarget
Server = Outside | LocalFile


@dataclass(frozen=True)
class Disk:
    """A disk that every root reaches. `source` is "pmem:ADDRESS", persistent memory by where it begins, which
    is the same in all roots of a machine, "nbd://ADDRESS:PORT/EXPORT" or "iscsi://ADDRESS:PORT/TARGET/LUN",
    servers outside, or "local:PATH", a file on a disk of the machine. `bus` is what the guest sees it on,
    `format` is what is in it. `initiator` is as whom we come to an iSCSI target, empty: as QEMU does untold.
    `login` is a file with a user and a password for it (`iscsi_login`), which a machine knows by its checksum
    (`kept_files`).
    """

    source: str
    bus: str = BUSES[0]
    read_only: bool = False
    format: str = RAW
    initiator: str = ""
    login: str = ""

    @property
    def address(self) -> int | None:
        """Physical address of its first byte if it is persistent memory; `checked` sees to the rest."""
        found = _PMEM.fullmatch(self.source)
        return int(found[1], 16) if found else None

    @property
    def server(self) -> Server | None:
        """Who serves it, if somebody does."""
        return self.local or _server(self.source) or iscsi_target.parse(self.source, self.initiator)

    @property
    def local(self) -> LocalFile | None:
        """The file on a disk of the machine, if it is one."""
        path = self.source.removeprefix(_LOCAL)
        return LocalFile(path) if path != self.source else None

    def checked(self) -> Disk:
        """Raises BadRequestError for what is no disk."""
        if self.bus not in BUSES:
            raise BadRequestError(f"no bus for disks called {self.bus!r}", f"there are: {', '.join(BUSES)}")
        if self.format not in FORMATS:
            raise BadRequestError(
                f"no format of disks called {self.format!r}", f"there are: {', '.join(FORMATS)}"
            )
        for word, given in (("initiator", self.initiator), ("login", self.login)):
            if given and not self.source.startswith(iscsi_target.SCHEME):
                raise BadRequestError(
                    f"the disk {self.source} is no iSCSI target's, which has {_SAID[word]}",
                    f"leave {word}= out",
                )
        if len(self.login) > _PATH_MOST or not self.login.isprintable():
            raise BadRequestError(f"no name of a file: {self.login!r}", "write it like login=disk.login")
        return replace(
            self,
            source=_checked(self.source),
            read_only=self.read_only or self.bus == "cd",
            initiator=iscsi_target.checked_initiator(self.initiator) if self.initiator else "",
        )


def _checked(source: str) -> str:
    """The one way to write that source: two that are equal are the same disk."""
    found = _PMEM.fullmatch(source.lower())
    if found and not int(found[1], 16) >> PHYS_BITS:
        return name_of(int(found[1], 16))
    if server := _server(source):
        return str(server)
    if source.startswith(_LOCAL):
        return str(LocalFile(_checked_path(source.removeprefix(_LOCAL))))
    if source.startswith(iscsi_target.SCHEME):
        return str(iscsi_target.checked(source))
    if source.startswith("nbd:"):
        raise BadRequestError(
            f"not a disk of an NBD server: {source!r}",
            "write it like nbd:10.77.3.2:10809/disk, with the server's IP address",
        )
    if _FILE.fullmatch(source):
        raise BadRequestError(
            f"a file is there in one root only: {source!r}",
            "`multiroot lab up --disk FILE` makes it a disk of all roots, which `multiroot disk list` shows; "
            "one on a disk of the machine is served to all roots as local:/PATH",
        )
    raise BadRequestError(
        f"not a disk that every root reaches: {source!r}",
        "`multiroot disk list` shows those there are, which look like pmem:0x1c0000000",
    )


def _checked_path(path: str) -> str:
    """The one way to write it."""
    if not path.startswith("/") or len(path) > _PATH_MOST or not path.isprintable() or path.endswith("/"):
        raise BadRequestError(f"no path of a file: {path!r}", "write it like local:/srv/web.raw")
    return posixpath.normpath("/" + path.lstrip("/"))


def _server(source: str) -> NbdServer | None:
    found = _NBD.fullmatch(source)
    if not found or not (found["url"] or found["port"]):
        return None
    try:
        host = str(ipaddress.ip_address(found["host"].strip("[]")))
    except ValueError:
        return None
    port, export = int(found["port"] or NBD_PORT), found["export"] or ""
    if not 0 < port < 1 << 16 or not _EXPORT.fullmatch(export):
        return None
    return NbdServer(host, port, export)


def parse_disks(texts: Sequence[str]) -> tuple[Disk, ...]:
    """Disks as an option has them, SOURCE with words behind commas; raises BadRequestError for others."""
    return tuple(map(_parse, texts))


def _parse(text: str) -> Disk:
    source, *words = text.split(",")
    disk = Disk(source)
    for word in words:
        name, _, value = word.partition("=")
        if name in ("bus", "format", "initiator", "login"):
            disk = replace(disk, **{name: value})  # type: ignore[arg-type]
        elif word == "ro":
            disk = replace(disk, read_only=True)
        else:
            raise BadRequestError(
                f"not a word about a disk: {word!r}",
                f"there are: bus={BUSES[0]}, format={QCOW2}, initiator=IQN, login=FILE, ro",
            )
    check_given_once(words, text)
    return disk


def write_disk(disk: Disk) -> str:
    """What `parse_disks` makes this disk of."""
    words = [disk.source]
    words += [f"bus={disk.bus}"] if disk.bus != BUSES[0] else []
    words += [f"format={disk.format}"] if disk.format != RAW else []
    words += [f"initiator={disk.initiator}"] if disk.initiator else []
    words += [f"login={disk.login}"] if disk.login else []
    return ",".join([*words, "ro"] if disk.read_only else words)


OPTION = Option(
    "--disk",
    f"A disk of the VM, as `multiroot disk list` has it, or nbd:IP:PORT/EXPORT, "
    f"or iscsi://IP:PORT/TARGET/LUN, or local:/PATH; several may be given. "
    f"BUS is {', '.join(BUSES)}. FORMAT is {' or '.join(FORMATS)}. "
    "A target that wants a password gets login=FILE, which holds USER:PASSWORD.",
    "SOURCE[,bus=BUS][,format=FORMAT][,initiator=IQN][,login=FILE][,ro]",
    default=(),
    parse=parse_disks,
    multiple=True,
)


def name_of(address: int) -> str:
    """The source that begins at a physical address."""
    return f"pmem:{address:#x}"


def name_in_guest(number: int) -> str:
    """The serial number by which a guest, and the boot order, knows disk `number` of its VM."""
    return f"disk{number}"


def check_disks(disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """All of a VM, checked; raises BadRequestError also for one that is given twice."""
    if len(disks) > MOST:
        raise BadRequestError(f"a VM cannot have {len(disks)} disks", f"{MOST} at most")
    made = tuple(disk.checked() for disk in disks)
    for number, disk in enumerate(made):
        if any(disk.source == other.source for other in made[:number]):
            raise BadRequestError(f"the disk {disk.source} is given twice", "a VM has each disk once")
    return made
