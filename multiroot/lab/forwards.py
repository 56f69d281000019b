# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports of the workstation's loopback that lead to guests of a lab machine.

QEMU's user network, which the guests' uplink is connected with, passes them on. It is outside of the machine:
a connection goes on whatever root the guest is in, and whatever root has the uplink.

QEMU does not know which VM a port is for, and an address may be another VM's later: a file of the lab tells.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from multiroot import json_files
from multiroot.errors import ConflictError, PeerLostError
from multiroot.lab import paths
from multiroot.lab.machine import QMP_SOCKET, UPLINK
from multiroot.lab.state import LabState

HOST = "127.0.0.1"
WAIT_S = 10.0  # for a machine that is busy
# A line of `info usernet`: protocol and state, descriptor, source, its port, destination, its port.
_LINE = re.compile(r"\s*TCP\[HOST_FORWARD\]\s+\d+\s+([\d.]+)\s+(\d+)\s+([\d.]+)\s+(\d+)\b")
_RECORD = "forwards.json"  # which VM a port is for: {"8080": "web"}
_KNOWN_HOSTS = "known-hosts"


@dataclass(frozen=True)
class Forward:
    """`port` of the workstation's loopback leads to `guest_port` at a guest's address. `vm` is whose that is,
    "" if nobody has said.
    """

    port: int
    address: str
    guest_port: int
    vm: str = ""


def parse(text: str, network: str = UPLINK) -> list[Forward]:
    """The forwards of one user network, in what QEMU's monitor says to `info usernet`."""
    found: list[Forward] = []
    ours = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            ours = line.split()[0].rstrip(":") == network or f"({network})" in line
        elif ours and (match := _LINE.match(line)) and match[1] == HOST:
            found.append(Forward(int(match[2]), match[3], int(match[4])))
    return sorted(found, key=lambda each: each.port)


def add(state: LabState, address: str, guest_port: int, port: int = 0, *, vm: str = "") -> Forward:
    """Let `port`, or a free one for 0, lead to a port of the guest that has `address`, which is that of `vm`.
    If one does already, it is that one; if `port` leads to an address that this VM had, it does no more.
    Raises ConflictError if the port is taken.
    """
    with _record(state) as record:
        known = _listed(state, record)
        for each in known:
            if (each.address, each.guest_port) == (address, guest_port) and port in (0, each.port):
                made = each
                break
        else:
            _make_room(state, port, guest_port, vm, known, record)
            made = _make(state, address, guest_port, port, vm)
        if vm:
            record[str(made.port)] = vm
        return replace(made, vm=vm or made.vm)


def _make_room(
    state: LabState, port: int, guest_port: int, vm: str, known: Sequence[Forward], record: dict[str, Any]
) -> None:
    """Raises ConflictError if a port leads elsewhere; to an address that the VM had, it does no more."""
    taken = next((each for each in known if each.port == port), None)
    if taken and not (vm and (taken.vm, taken.guest_port) == (vm, guest_port)):
        raise _taken(taken)
    if taken:
        _remove(state, taken, record)


def _make(state: LabState, address: str, guest_port: int, port: int, vm: str) -> Forward:
    """A new one."""
    before = {each.port for each in _listed(state, {})}
    (said,) = _ask(state, [f"hostfwd_add {UPLINK} tcp:{HOST}:{port}-{address}:{guest_port}"])
    if said.strip():
        raise _refused(port, guest_port, vm, said.strip())
    (made,) = [each for each in _listed(state, {}) if each.port not in before]
    return made


def remove(state: LabState, forward: Forward) -> None:
    """Nothing new comes that way; connections that are open go on."""
    with _record(state) as record:
        _remove(state, forward, record)


def forget(state: LabState, gone: Collection[str] = (), there: Collection[str] | None = None) -> None:
    """Take away what is here for the VMs `gone`, or for all but those that are `there`: the ways to them, and
    the keys that their SSH servers had.
    """

    def is_gone(vm: str) -> bool:
        return vm in gone or (there is not None and vm not in there)

    with _record(state) as record:
        if any(vm and is_gone(vm) for vm in record.values()):
            for each in _listed(state, record):
                if each.vm and is_gone(each.vm):
                    _remove(state, each, record)
            for port in [port for port, vm in record.items() if vm and is_gone(vm)]:
                del record[port]
    for keys in (state.folder / _KNOWN_HOSTS).glob("*"):
        if is_gone(keys.name):
            keys.unlink(missing_ok=True)


def known_hosts(state: LabState, vm: str) -> Path:
    """The file for ssh(1) that keeps the key of a VM's SSH server: another VM of that name has another."""
    return paths.make_dir(state.folder / _KNOWN_HOSTS) / vm


def plug(state: LabState, *, connected: bool) -> None:
    """Pull the cable of the guests' uplink, or plug it in again."""
    _ask(state, [f"set_link {UPLINK} {'on' if connected else 'off'}"])


def listed(state: LabState) -> list[Forward]:
    """All forwards to guests of this machine, by port."""
    with _record(state) as record:
        return _listed(state, record)


def _listed(state: LabState, record: dict[str, Any]) -> list[Forward]:
    (said,) = _ask(state, ["info usernet"])
    return [replace(each, vm=str(record.get(str(each.port), ""))) for each in parse(said)]


def _remove(state: LabState, forward: Forward, record: dict[str, Any]) -> None:
    _ask(state, [f"hostfwd_remove {UPLINK} tcp:{HOST}:{forward.port}"])
    record.pop(str(forward.port), None)


@contextmanager
def _record(state: LabState) -> Iterator[dict[str, Any]]:
    """Which VM each port is for. One command at a time reads and changes it, and what it says is kept."""
    path = state.folder / _RECORD
    # A folder, for which nobody needs a file of another user's.
    try:
        folder = os.open(state.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PeerLostError(f"the lab's folder {state.folder} is gone: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = json_files.read(path, dict, dict, f"remove it: rm {path}") or {}
        record = dict(before)
        try:
            yield record
        finally:
            if record != before:
                json_files.write(path, record)
                paths.give_to_user(path)
    finally:
        os.close(folder)


def _taken(by: Forward) -> ConflictError:
    whose = f"port {by.guest_port} of {by.vm or by.address}"
    hint = f"take it away: multiroot vm forward {by.vm} {by.port}:{by.guest_port} --remove" if by.vm else ""
    return ConflictError(f"port {by.port} leads to {whose} already", hint or "take another port")


def _refused(port: int, guest_port: int, vm: str, said: str) -> ConflictError:
    """What is in the way; QEMU does not say it."""
    hint = f"have one that is free: multiroot vm forward {vm} {guest_port}" if vm else "take another port"
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
            tried.listen()
        except OSError as error:
            why = {
                errno.EADDRINUSE: f"port {port} of this computer is in use by another program",
                errno.EACCES: f"port {port} of this computer is for root alone",
            }.get(error.errno or 0, f"port {port} of this computer can't be had: {error.strerror}")
            return ConflictError(why, hint)
    return ConflictError(f"port {port} cannot be forwarded: {said}", hint)


def _ask(state: LabState, commands: Sequence[str]) -> list[str]:
    """What the monitor of a lab machine says to commands; raises PeerLostError if it says nothing."""
    return asyncio.run(_asked(state.folder / QMP_SOCKET, commands))


async def _asked(path: Path, commands: Sequence[str]) -> list[str]:
    client = QMPClient("forwards")
    try:
        async with asyncio.timeout(WAIT_S):
            await client.connect(str(path))
            return [
                str(await client.execute("human-monitor-command", {"command-line": command}))
                for command in commands
            ]
    except (OSError, QMPError, TimeoutError, ExecuteError) as error:
        raise PeerLostError(f"the lab machine's QEMU does not answer on {path}: {error}") from error
    finally:
        await client.disconnect()
