# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for an iSCSI target: one disk, from the login to a read of its beginning."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress

BLOCK = 512
TARGET = "iqn.2026-11.org.example:disk"


class IscsiServer:
    """Listens on loopback until `close`. Its disk has the number 1. `login` is the class and the detail of
    the status that it answers a login with; `greeting` is what it says instead of iSCSI. With `users`
    it lets in who proves by CHAP to be one of them, with that password.
    """

    def __init__(
        self,
        content: bytes,
        *,
        read_only: bool = False,
        login: tuple[int, int] = (0, 0),
        greeting: bytes = b"",
        users: Mapping[str, str] | None = None,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._content, self._read_only, self._login, self._greeting = content, read_only, login, greeting
        self._users = users
        self.heard = b""  # all that was said in logins
        self.initiators: list[str] = []
        self.numbers: set[bytes] = set()  # of sessions
        self._status = 1000
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):  # a second time
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, suppress(OSError, struct.error):
                    self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        if self._greeting:
            client.sendall(self._greeting)
            return
        if self._users is not None and not self._proved(client, self._users):
            return
        # It goes on to the next stage only when it is asked for the second time.
        for flags in (0x04, 0x87):
            header, data = self._receive(client)
            self.numbers.add(header[8:14])
            self._meet(data)
            self._answer(client, header, 0x23, flags, rest=bytes(self._login).ljust(12, b"\0"))
            if self._login[0]:
                return
        attention = True
        while True:
            header, _ = self._receive(client)
            if attention:  # as after a target's start
                sense = struct.pack(">H", 18) + b"\x70\0\x06".ljust(18, b"\0")
                self._answer(client, header, 0x21, 0x80, status=2, data=sense)
                attention = False
                continue
            self._answer(client, header, 0x20, 0x80)  # a sign of life
            said = self._said(header[9], header[32:48])
            half = len(said) // 2 // 4 * 4
            self._answer(client, header, 0x25, 0, data=said[:half])
            self._answer(client, header, 0x25, 0x81, data=said[half:], rest=struct.pack(">4xI4x", half))

    def _proved(self, client: socket.socket, users: Mapping[str, str]) -> bool:
        number, challenge = 7, bytes(range(16))
        header, data = self._receive(client)
        refused = bytes([2, 1]).ljust(12, b"\0")
        if not header[1] & 0x0C:
            offered = self._meet(data)["AuthMethod"].split(",")
            assert offered[0] == "CHAP"
            self._answer(client, header, 0x23, 0, data=b"AuthMethod=CHAP\0")
            header, data = self._receive(client)
            assert self._meet(data) == {"CHAP_A": "5"}
            asked = f"CHAP_A=5\0CHAP_I={number}\0CHAP_C=0x{challenge.hex()}\0"
            self._answer(client, header, 0x23, 0, data=asked.encode())
            header, data = self._receive(client)
            keys = self._meet(data)
            wanted = hashlib.md5(bytes([number]) + users.get(keys["CHAP_N"], "").encode() + challenge)
            if keys["CHAP_N"] in users and keys["CHAP_R"] == f"0x{wanted.hexdigest()}":
                self._answer(client, header, 0x23, 0x81)
                return True
        self._answer(client, header, 0x23, 0, rest=refused)
        return False

    def _meet(self, data: bytes) -> dict[str, str]:
        """The keys in a piece of a login."""
        self.heard += data
        keys = dict(word.split("=") for word in data.decode().rstrip("\0").split("\0")) if data else {}
        if "InitiatorName" in keys:
            self.initiators.append(keys["InitiatorName"])
            assert keys["TargetName"] == TARGET
        return keys

    def _said(self, lun: int, command: bytes) -> bytes:
        blocks = len(self._content) // BLOCK
        return {
            0x12: bytes([0 if lun == 1 else 0x7F]).ljust(36, b"\0"),
            0x9E: struct.pack(">QI20x", blocks - 1, BLOCK),
            0x1A: bytes([3, 0, 0x80 * self._read_only, 0]),
            0x88: self._content[: BLOCK * struct.unpack(">I", command[10:14])[0]],
        }[command[0]]

    def _answer(
        self,
        client: socket.socket,
        asked: bytes,
        kind: int,
        flags: int,
        *,
        status: int = 0,
        data: bytes = b"",
        rest: bytes = bytes(12),
    ) -> None:
        """`rest` is what the header has from its 36th byte on."""
        header = bytes([kind, flags, 0, status]) + struct.pack(">I", len(data)) + asked[8:20] + bytes(4)
        header += struct.pack(">III", self._status, 0, 0) + rest
        self._status += 1
        client.sendall(header + data + bytes(-len(data) % 4))

    def _receive(self, client: socket.socket) -> tuple[bytes, bytes]:
        header = client.recv(48, socket.MSG_WAITALL)
        if len(header) < 48:
            raise ConnectionResetError
        length = int.from_bytes(header[5:8], "big")
        data = client.recv(length + -length % 4, socket.MSG_WAITALL) if length else b""
        return header, data[:length]
