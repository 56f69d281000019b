# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports of the workstation's loopback that lead to guests of a lab machine.

QEMU's user network, which the guests' uplink is connected with, passes them on. It is outside of the machine:
a connection goes on whatever root the guest is in, and whatever root has the uplink.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qemu.qmp import ExecuteError, QMPClient, QMPError

from multiroot.errors import ConflictError, PeerLostError
from multiroot.lab.machine import QMP_SOCKET, UPLINK
from multiroot.lab.state import LabState

HOST = "127.0.0.1"
WAIT_S = 10.0  # for a machine that is busy
# A line of `info usernet`: protocol and state, descriptor, source, its port, destination, its port.
_LINE = re.compile(r"\s*TCP\[HOST_FORWARD\]\s+\d+\s+([\d.]+)\s+(\d+)\s+([\d.]+)\s+(\d+)\b")


@dataclass(frozen=True)
class Forward:
    """`port` of the workstation's loopback leads to `guest_port` at a guest's address."""

    port: int
    address: str
    guest_port: int


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


def add(state: LabState, address: str, guest_port: int, port: int = 0) -> Forward:
    """Let `port`, or a free one for 0, lead to a port of the guest that has `address`. If one does
    already, it is that one. Raises ConflictError if the port is taken.
    """
    known = listed(state)
    for each in known:
        if (each.address, each.guest_port) == (address, guest_port) and port in (0, each.port):
            return each
    (said,) = _ask(state, [f"hostfwd_add {UPLINK} tcp:{HOST}:{port}-{address}:{guest_port}"])
    if said.strip():
        raise ConflictError(f"port {port} cannot be forwarded: {said.strip()}", "take another port")
    (made,) = set(listed(state)) - set(known)
    return made


def remove(state: LabState, forward: Forward) -> None:
    """Nothing new comes that way; connections that are open go on."""
    _ask(state, [f"hostfwd_remove {UPLINK} tcp:{HOST}:{forward.port}"])


def plug(state: LabState, *, connected: bool) -> None:
    """Pull the cable of the guests' uplink, or plug it in again."""
    _ask(state, [f"set_link {UPLINK} {'on' if connected else 'off'}"])


def listed(state: LabState) -> list[Forward]:
    """All forwards to guests of this machine, by port."""
    (said,) = _ask(state, ["info usernet"])
    return parse(said)


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
