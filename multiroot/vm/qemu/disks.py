# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's disks, and UEFI's flash, on QEMU's command line; pure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from multiroot.vm import firmware
from multiroot.vm.definition import DIRECT, SEABIOS
from multiroot.vm.disk import QCOW2, Disk, LocalFile, Server, name_in_guest
from multiroot.vm.iscsi_target import IscsiTarget
from multiroot.vm.qemu.options import Value, option
from multiroot.vm.vmm import DiskLogin

DISK_SLOT = 0x10
SEED_SLOT = 0x1C
# Of a modern device QEMU saves 1024 queues while the guest stands still.
_LEGACY: dict[str, Value] = {"disable-modern": True, "disable-legacy": False}
_QUEUE: dict[str, Value] = {"queue-size": 128, "num-queues": 1}
# A request waits for a server as long as it takes (QEMU takes seconds, in 32 bits).
_FOR_EVER_S = 4_000_000_000
# A target tells of a disk that it does not know yet by an error. The guest stands still then (refusals.py).
_UNTIL_IT_IS_DONE: dict[str, Value] = {"werror": "stop", "rerror": "stop"}
CODE, VARIABLES = "code", "variables"


def disk_words(
    number: int,
    disk: Disk,
    node: Path | None,
    login: DiskLogin | None = None,
    *,
    started_by: str,
    order: tuple[str, ...] = (),
) -> list[str]:
    """Disk `number` (from 0) of a VM, at block device `node` or at its server. A firmware tries those of
    `order`, or all as they are numbered. Nothing of it is cached in this root: another may go on with it. A
    guest knows it by slot and serial number, which are the same in all roots.
    """
    name = name_in_guest(number)
    slot = f"{DISK_SLOT + number:#x}"
    front: dict[str, Value] = {"drive": name, "serial": name}
    if isinstance(disk.server, IscsiTarget):
        front |= _UNTIL_IT_IS_DONE
    if started_by != DIRECT and (not order or name in order):
        front["bootindex"] = order.index(name) if order else number
    if disk.bus == "virtio-blk":
        words = ["-device", option("virtio-blk-pci", {**_LEGACY, "addr": slot, **_QUEUE, **front})]
    else:
        bus, kind = f"scsi{number}", "scsi-cd" if disk.bus == "cd" else "scsi-hd"
        words = [
            "-device", option("virtio-scsi-pci", {**_LEGACY, "addr": slot, "id": bus, "num_queues": 1}),
            "-device", option(kind, {"bus": f"{bus}.0", "device_id": name, **front}),
        ]  # fmt: skip
    return [*_secret_words(name, login), "-blockdev", json.dumps(_backend(name, disk, node, login)), *words]


def _secret_words(name: str, login: DiskLogin | None) -> list[str]:
    """The password, of which QEMU's command line has but the file's name."""
    return ["-object", option("secret", {"id": f"{name}-password", "file": login.password})] if login else []


def order_words(order: tuple[str, ...], *, started_by: str) -> list[str]:
    """What keeps SeaBIOS from trying the disks that are not in the order. UEFI does so untold."""
    return ["-boot", "strict=on"] if order and started_by == SEABIOS else []


def _backend(name: str, disk: Disk, node: Path | None, login: DiskLogin | None) -> dict[str, Any]:
    common = {"read-only": disk.read_only, "cache": {"direct": True}, "discard": "unmap"}
    if node is not None:
        source: dict[str, Any] = {"driver": "host_device", "filename": os.fspath(node)}
    else:
        assert disk.server
        source = _served(disk.server)
        source |= {"user": login.user, "password-secret": f"{name}-password"} if login else {}
    if disk.format != QCOW2:
        return {"node-name": name, **source, **common}
    # Whatever the image says: it is whole, and no other file of this root is its part.
    file = {"node-name": f"{name}-file", **source, **common}
    return {"node-name": name, "driver": QCOW2, "backing": None, "file": file, **common}


def _served(server: Server) -> dict[str, Any]:
    if isinstance(server, IscsiTarget):
        # Untold, a request waits for it as long as it takes.
        return {
            "driver": "iscsi",
            "transport": "tcp",
            "portal": server.portal,
            "target": server.target,
            "lun": server.lun,
            "initiator-name": server.initiator,
        }
    where: dict[str, Any] = (
        {"type": "unix", "path": os.fspath(server.door)}
        if isinstance(server, LocalFile)
        else {"type": "inet", "host": server.host, "port": str(server.port), "keep-alive": True}
    )
    return {"driver": "nbd", "server": where, "export": server.export, "reconnect-delay": _FOR_EVER_S}


def seed_words(seed: Path) -> list[str]:
    """The disk for cloud-init, from which nothing boots."""
    backend = {"driver": "file", "node-name": "seed", "filename": os.fspath(seed), "read-only": True}
    front: dict[str, Value] = {**_LEGACY, "addr": f"{SEED_SLOT:#x}", **_QUEUE, "drive": "seed"}
    return ["-blockdev", json.dumps(backend), "-device", option("virtio-blk-pci", front)]


def flash_words(folder: Path) -> list[str]:
    """UEFI's code, which nobody writes to, and its variables in the VM's `folder`."""
    code = {"driver": "file", "node-name": CODE, "filename": os.fspath(firmware.CODE), "read-only": True}
    written = {
        "driver": "file", "node-name": VARIABLES, "filename": os.fspath(firmware.variables(folder)),
    }  # fmt: skip
    return ["-blockdev", json.dumps(code), "-blockdev", json.dumps(written)]
