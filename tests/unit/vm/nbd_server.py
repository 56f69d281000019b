# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for an NBD server: one disk, from the greeting to a read of its beginning."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

REPLY_MAGIC = 0x3E889045565A9
INFO, ACK, UNKNOWN = 3, 1, (1 << 31) + 6


class NbdServer:
    """Listens on loopback until `close`. `greeting` is what it begins with instead of NBD."""

    def __init__(
        self, name: str, content: bytes, *, flags: int = 0, greeting: bytes = b"", port: int = 0
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._name, self._content, self._flags, self._greeting = name, content, flags, greeting
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """As a server that ends: its connections do, too."""
        with suppress(OSError):  # a second time
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with suppress(OSError, struct.error):
            self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        client.sendall(self._greeting or b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        if self._greeting:
            client.close()
            return
        client.recv(4, socket.MSG_WAITALL)
        _, option, length = struct.unpack(">8sII", client.recv(16, socket.MSG_WAITALL))
        data = client.recv(length, socket.MSG_WAITALL)
        if data[4:-2].decode() != self._name:
            words = b"no such export"
            client.sendall(struct.pack(">QIII", REPLY_MAGIC, option, UNKNOWN, len(words)) + words)
            return
        found = struct.pack(">HQH", 0, len(self._content), 1 | self._flags)
        client.sendall(struct.pack(">QIII", REPLY_MAGIC, option, INFO, len(found)) + found)
        client.sendall(struct.pack(">QIII", REPLY_MAGIC, option, ACK, 0))
        *_, cookie, offset, length = struct.unpack(">IHHQQI", client.recv(28, socket.MSG_WAITALL))
        client.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + self._content[offset : offset + length])
