# SPDX-License-Identifier: GPL-2.0-or-later
"""How a disk of an iSCSI target is written; pure. Names are as in RFC 7143, 4.2.7."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from multiroot.errors import BadRequestError

SCHEME = "iscsi:"
PORT = 3260
# What QEMU calls itself if nobody says otherwise, without a VM's name: all VMs' disks come by it.
INITIATOR = "iqn.2008-11.org.linux-kvm"
_EXAMPLE = "iscsi://10.77.3.2:3260/iqn.2026-11.org.example:disk/1"
_URL = re.compile(
    r"iscsi://(?P<host>\[[0-9a-f:.]+\]|[0-9.]+)(:(?P<port>[0-9]{1,5}))?/(?P<target>[^/]+)/(?P<lun>[0-9]{1,3})"
)
_USER = re.compile(r"iscsi://[^/]*@.*", re.DOTALL)
_NAME = re.compile(
    r"iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9][a-z0-9.-]*(:[a-z0-9._:-]+)?|eui\.[0-9a-f]{16}|naa\.[0-9a-f]{16}([0-9a-f]{16})?"
)
_NAME_MOST = 223
_LUNS = 256  # those that are one number


@dataclass(frozen=True)
class IscsiTarget:
    """Who serves a disk by iSCSI: an IP address, a port, the target's name, the number of the disk in it, and
    as whom we come.
    """

    host: str
    port: int
    target: str
    lun: int
    initiator: str = INITIATOR

    @property
    def portal(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"iscsi://{self.portal}/{self.target}/{self.lun}"


def parse(source: str, initiator: str = "") -> IscsiTarget | None:
    """None if it is no such disk. Names that differ in capital letters are the same (RFC 3722)."""
    found = _URL.fullmatch(source)
    if not found:
        return None
    try:
        host = str(ipaddress.ip_address(found["host"].strip("[]")))
    except ValueError:
        return None
    port, target, lun = int(found["port"] or PORT), found["target"].lower(), int(found["lun"])
    if not 0 < port < 1 << 16 or not lun < _LUNS or not _is_name(target):
        return None
    return IscsiTarget(host, port, target, lun, initiator or INITIATOR)


def checked(source: str) -> IscsiTarget:
    """Raises BadRequestError for what is no such disk."""
    if target := parse(source):
        return target
    if _USER.fullmatch(source):
        raise BadRequestError(
            "a user and a password in a disk's name would be seen by all who list VMs or processes",
            "put USER:PASSWORD into a file, and add login=FILE to the disk",
        )
    raise BadRequestError(
        f"not a disk of an iSCSI target: {source!r}",
        f"write it like {_EXAMPLE}, with the target's IP address, its name and the disk's number",
    )


def checked_initiator(name: str) -> str:
    """The one way to write it."""
    if not _is_name(name.lower()):
        raise BadRequestError(
            f"not a name of an iSCSI initiator: {name!r}",
            "write it like initiator=iqn.2026-11.org.example:vm",
        )
    return name.lower()


def _is_name(text: str) -> bool:
    return len(text) <= _NAME_MOST and bool(_NAME.fullmatch(text))
