# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for QEMU: speaks enough QMP, runs a "guest" whose memory is the real arena, migrates for real.

The guest is a counter in its RAM that it also prints as the ticker does. It notices when another copy of it
runs at the same time, which must never happen: that is counted in RAM too. Faults are ordered by $FAKE_QEMU,
words separated by blanks:

no-svm           do not start with a CPU that has the feature svm
exit             end at once, as on a bad option
version=X        claim to be version X
refuse:COMMAND   answer a command with an error
die:COMMAND      die when a command comes
reset:COMMAND    let the guest reset itself when a command comes
broken:COMMAND   let KVM fail to go on with the guest when a command comes
io-error:C=N     have the disk refuse something when command C comes, and N times more when the guest goes on
deaf             do nothing when the power button is pressed
refuse-state     do not accept the incoming state
hang-load        accept it, and never say so
die-before-stop  die while the guest still runs
die-stopped      die before the end mark is written
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

TICK_S = 0.002
ROM = b"\x55\xaa" * 65536
END = b"<end of state>"
PAGE = 4096
RAM = struct.Struct("<QQQ")  # counter, pid of who runs, times that someone else ran too
ECAM = 0xB0000000
# What a booted guest has set, by function and offset; a QEMU just started has the identities alone.
IDENTITIES = {(0x00, 0): 0x29C08086, (0xF8, 0): 0x29188086, (0x08, 0): 0x10001AF4}
SET_BY_GUEST = {(0x00, 0x60): ECAM | 1, (0x00, 0x90): 0x33333310, (0xF8, 0x44): 0x80, (0x08, 0x10): 0x1001}


class RefusedError(Exception):
    """A command is answered with this error."""


class Machine:
    """Registers, as far as the human monitor's x, i and o reach."""

    def __init__(self) -> None:
        self._config = dict(IDENTITIES)
        self._address = 0
        self._hotplug = 1

    def boot(self) -> None:
        self._config.update(SET_BY_GUEST)
        self._hotplug = 0

    def run(self, line: str) -> str:
        command, form, *numbers = line.split()
        address, *value = (int(number, 16) for number in numbers)
        if command == "xp":
            count = int(form.removeprefix("/").removesuffix("xw"))
            function, offset = divmod(address - ECAM, 4096)
            words = [self._config.get((function, offset + 4 * word), 0) for word in range(count)]
            return f"{address:016x}:" + "".join(f" {word:#010x}" for word in words) + "\r\n"
        if command == "i":
            return f"portb[{address:#06x}] = {self._hotplug:#04x}\r\n"
        if address == 0xCD8:
            self._hotplug = value[0]
        elif address == 0xCF8:
            self._address = value[0]
        else:
            self._config[(self._address >> 8 & 0xFF, self._address & 0xFF)] = value[0]
        return ""


class Guest:
    """Counts in shared memory while it runs."""

    def __init__(self, path: str, offset: int, size: int, serial: socket.socket) -> None:
        with Path(path).open("r+b") as file:
            self._ram = mmap.mmap(file.fileno(), size, offset=offset)
        self._serial = serial
        self._go = threading.Event()
        self._stopped = threading.Condition()
        self._ticking = False
        self.counter = 0
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def running(self) -> bool:
        return self._go.is_set()

    def boot(self) -> None:
        self._ram[: RAM.size] = RAM.pack(0, 0, 0)
        self._serial.sendall(b"READY boot=0-1\n")

    def reset(self) -> None:
        """Boot again, and go on if it was running."""
        running = self.running
        self.stop()
        self.boot()
        if running:
            self.start()

    def start(self) -> None:
        counter, _, clashes = RAM.unpack(self._ram[: RAM.size])
        self._ram[: RAM.size] = RAM.pack(counter, os.getpid(), clashes)
        self._go.set()

    def stop(self) -> None:
        self._go.clear()
        with self._stopped:
            self._stopped.wait_for(lambda: not self._ticking)

    def _run(self) -> None:
        while self._go.wait():
            with self._stopped:
                self._ticking = self._go.is_set()
            if self._ticking:
                self._tick()
            with self._stopped:
                self._ticking = False
                self._stopped.notify_all()
            time.sleep(TICK_S)

    def _tick(self) -> None:
        counter, runner, clashes = RAM.unpack(self._ram[: RAM.size])
        clashes += runner != os.getpid()
        counter += 1
        self._ram[: RAM.size] = RAM.pack(counter, os.getpid(), clashes)
        if counter % 8:
            line = f"T {counter:x}\n"
        else:
            line = f"R {counter:x} boot=0-1 mono=1 wall=1 checked={counter} bad={clashes} gap=1\n"
        self._serial.sendall(line.encode())


class Qemu:
    """The QMP server and what it controls."""

    def __init__(self, options: dict[str, str], chardevs: dict[str, int], faults: list[str]) -> None:
        self._faults = faults
        self._refusals = 0  # still to come
        self._status_word = ""  # of query-status, unless the guest simply runs or not
        self._lock = threading.Lock()
        self._client: socket.socket | None = None
        self._monitor: socket.socket | None = None
        self._listener = socket.socket(fileno=chardevs["qmp"])
        self._pending: list[int] = []
        if "-m" not in options:
            # It is only asked.
            return
        memory = dict(part.partition("=")[::2] for part in options["-object"].split(","))
        number = {key: int(memory[key].removesuffix("B")) for key in ("offset", "size")}
        serial = socket.socket(fileno=chardevs["serial"])
        self._guest = Guest(memory["mem-path"], number["offset"], number["size"], serial)
        self._incoming = "-incoming" in options
        self._fds: dict[str, int] = {}
        self._monitor = socket.socket(fileno=chardevs["monitor"]) if "monitor" in chardevs else None
        self._migration: dict[str, Any] = {}
        self._machine = Machine()
        if not self._incoming:
            self._machine.boot()
            if "mute" not in faults:
                self._guest.boot()
                self._guest.start()

    def serve(self) -> None:
        if self._monitor is not None:
            threading.Thread(target=self._serve_monitor, args=(self._monitor,), daemon=True).start()
        while True:
            client, _ = self._listener.accept()
            # Not while an event is being sent to the one before, which forgets the client when that fails.
            with self._lock:
                self._client = client
            self._send(self._greeting(), client)
            self._serve_client(client)

    def _serve_monitor(self, monitor: socket.socket) -> None:
        self._send(self._greeting(), monitor)
        self._serve_client(monitor)
        with self._lock:
            self._monitor = None

    def _greeting(self) -> dict[str, Any]:
        return {"QMP": {"version": self.do_query_version(), "capabilities": []}}

    def _serve_client(self, client: socket.socket) -> None:
        buffer = b""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(client, 65536, 4)
            except ConnectionResetError:
                # A client that is killed with something unread resets the connection.
                return
            if not data:
                return
            self._pending += fds
            buffer += data
            buffer = self._commands(buffer.decode().strip(), client).encode()

    def _commands(self, text: str, client: socket.socket) -> str:
        """Run the whole ones, wherever lines end; returns what is left."""
        decoder = json.JSONDecoder()
        while text:
            try:
                command, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            text = text[end:].strip()
            self._command(command, client)
        return text

    def _command(self, command: dict[str, Any], client: socket.socket) -> None:
        name, arguments = command["execute"], command.get("arguments", {})
        answer: dict[str, Any] = {"id": command["id"]} if "id" in command else {}
        if f"die:{name}" in self._faults:
            os._exit(9)
        if f"reset:{name}" in self._faults:
            self._reset("guest-reset")
        if f"broken:{name}" in self._faults:
            self._guest.stop()
            self._status_word = "internal-error"
            self._event("STOP")
        for word in self._faults:
            if word.startswith(f"io-error:{name}="):
                self._refusals = int(word.partition("=")[2])
                self._refuse()
        if f"refuse:{name}" in self._faults:
            answer["error"] = {"class": "GenericError", "desc": f"{name} is not to be had"}
            self._send(answer, client)
            return
        method = getattr(self, "do_" + name.replace("-", "_"), None)
        try:
            answer["return"] = (method(**{key.replace("-", "_"): value for key, value in arguments.items()})
                                if method else {})  # fmt: skip
        except RefusedError as error:
            answer["error"] = {"class": "GenericError", "desc": str(error)}
        self._send(answer, client)
        if name == "cont":
            self._event("RESUME")
            if self._refusals:
                self._refusals -= 1
                self._refuse()
        if name == "quit":
            os._exit(0)

    def do_query_version(self) -> dict[str, Any]:
        return {"qemu": {"major": 9, "minor": 9, "micro": 9}, "package": self._version()}

    def do_query_cpu_model_expansion(self, type: str, model: dict[str, Any]) -> dict[str, Any]:
        assert type == "static"
        if unknown := [name for name in (model["name"], *model["props"]) if name.startswith("no-such-")]:
            raise RefusedError(f"Property 'max-x86_64-cpu.{unknown[0]}' not found")
        known = {"lm": True, "svm": True, "vmx": False, "family": 23, "model-id": f"fake {model['name']}"}
        return {"model": {"name": "base", "props": {**known, **model["props"]}}}

    def do_getfd(self, fdname: str) -> dict[str, Any]:
        self._fds[fdname] = self._pending.pop(0)
        return {}

    def do_query_status(self) -> dict[str, Any]:
        status = self._status_word or ("running" if self._guest.running else "paused")
        return {"running": self._guest.running, "status": status}

    def do_stop(self) -> dict[str, Any]:
        self._guest.stop()
        self._event("STOP")
        return {}

    def do_system_powerdown(self) -> dict[str, Any]:
        self._event("POWERDOWN")
        if "deaf" not in self._faults and self._guest.running:
            self._event("SHUTDOWN", guest=True, reason="guest-shutdown")
            threading.Thread(target=self._power_off, daemon=True).start()
        return {}

    def _power_off(self) -> None:
        time.sleep(TICK_S)  # the command is answered first
        os._exit(0)

    def do_system_reset(self) -> dict[str, Any]:
        self._reset("host-qmp-system-reset")
        return {}

    def _reset(self, reason: str) -> None:
        self._guest.reset()
        self._event("RESET", guest=reason.startswith("guest"), reason=reason)

    def _refuse(self) -> None:
        self._guest.stop()
        self._status_word = "io-error"
        about = {"node-name": "disk0", "operation": "write", "reason": "Operation not supported"}
        self._event("BLOCK_IO_ERROR", **about, action="stop")
        self._event("STOP")

    def do_cont(self) -> dict[str, Any]:
        self._status_word = ""
        self._guest.start()
        return {}

    def do_human_monitor_command(self, command_line: str) -> str:
        return self._machine.run(command_line)

    def do_query_migrate(self) -> dict[str, Any]:
        return self._migration

    def do_migrate_cancel(self) -> dict[str, Any]:
        self._status("cancelled")
        return {}

    def do_migrate(self, uri: str) -> dict[str, Any]:
        threading.Thread(target=self._save, args=(self._take_fd(uri),), daemon=True).start()
        return {}

    def do_migrate_incoming(self, uri: str) -> dict[str, Any]:
        threading.Thread(target=self._load, args=(self._take_fd(uri),), daemon=True).start()
        return {}

    def _take_fd(self, uri: str) -> socket.socket:
        return socket.socket(fileno=self._fds.pop(uri.removeprefix("fd:")))

    def _save(self, sock: socket.socket) -> None:
        self._migration = {"ram": {"total": len(ROM), "normal": len(ROM) // PAGE, "page-size": PAGE}}
        self._migration["ram"]["transferred"] = len(ROM) + len(b"device state") + len(END)
        self._status("active")
        was_running = self._guest.running
        try:
            sock.sendall(ROM)
            if "die-before-stop" in self._faults:
                os._exit(9)
            if self._guest.running:
                self._guest.stop()
                self._event("STOP")
            self._status("device")
            sock.sendall(b"device state")
            if "die-stopped" in self._faults:
                os._exit(9)
            sock.sendall(END)
        except OSError:
            # As QEMU does: a migration that fails lets the guest go on.
            self._status("failed")
            if was_running:
                self._guest.start()
            return
        self._status("completed")
        sock.close()

    def _load(self, sock: socket.socket) -> None:
        self._status("setup")
        state = b""
        while not state.endswith(END):
            data = sock.recv(65536)
            if not data:
                self._load_failed("the stream ended early")
            state += data
        if "refuse-state" in self._faults or not state.startswith(ROM):
            self._load_failed("unknown section")
        if "hang-load" in self._faults:
            return
        self._status("completed")

    def _load_failed(self, why: str) -> None:
        sys.stderr.write(f"qemu-system-x86_64: load of migration failed: {why}\n")
        sys.stderr.flush()
        os._exit(1)

    def _status(self, status: str) -> None:
        self._migration["status"] = status
        self._event("MIGRATION", status=status)

    def _event(self, name: str, **data: Any) -> None:
        now = time.time_ns()
        stamp = {"seconds": now // 10**9, "microseconds": now % 10**9 // 1000}
        for client in (self._monitor, self._client):
            if client is not None:
                self._send({"event": name, "data": data, "timestamp": stamp}, client)

    def _send(self, message: dict[str, Any], client: socket.socket) -> None:
        with self._lock:
            try:
                client.sendall(json.dumps(message).encode() + b"\r\n")
            except OSError:
                if client is self._client:
                    self._client = None
                if client is self._monitor:
                    self._monitor = None

    def _version(self) -> str:
        return next((word.partition("=")[2] for word in self._faults if word.startswith("version=")), "fake")


def _check_machine(text: str, arguments: list[str]) -> None:
    """As QEMU does: an option that there is not, and what takes a slot that is taken."""
    kind, *words = text.split(",")
    for name in (word.partition("=")[0] for word in words):
        if name.startswith("no-such-") or (kind == "microvm" and name == "hpet"):
            sys.exit(f"qemu-system-x86_64: Property '{kind}-machine.{name}' not found")
    if "usb=on" in words and "i6300esb,addr=0x1d" in arguments:
        sys.exit("qemu-system-x86_64: -device i6300esb,addr=0x1d: PCI: slot 29 function 0 not available")


def main(arguments: list[str]) -> None:
    faults = os.environ.get("FAKE_QEMU", "").split()
    if "exit" in faults:
        sys.exit("qemu-system-x86_64: -machine: unsupported machine")
    if "no-svm" in faults and any("svm=on" in word for word in arguments):
        place = "CPUID[eax=80000001h].ECX.svm [bit 2]"
        sys.exit(f"qemu-system-x86_64: warning: host doesn't support requested feature: {place}")
    _check_machine(arguments[arguments.index("-machine") + 1], arguments)
    options: dict[str, str] = {}
    chardevs: dict[str, int] = {}
    for word, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "-chardev":
            fields = dict(part.partition("=")[::2] for part in value.split(","))
            chardevs[fields["id"]] = int(fields["fd"])
        elif word.startswith("-") and not value.startswith(("monitor-qmp,", "secret,")):
            options[word] = value
    Qemu(options, chardevs, faults).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
