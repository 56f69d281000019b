# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the emulator's that boots a guest's disk by a firmware: its serial port, SSH into it, its
power button. The disk is never written to.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from multiroot import arch, proc
from multiroot.lab import boot
from multiroot.lab.machine import emulator_argv
from multiroot.vm.qemu.options import option

_CONNECT_S = 60.0
_TAIL = 4000  # characters of the console that an error shows
USER = "debian"


class SerialPort:
    """The guest's serial port: all that came from it, also into the file `log`, and what is waited for.

    It is read all the time: a guest whose console nobody reads stands still.
    """

    def __init__(self, path: Path, log: Path) -> None:
        self._listening = socket.create_server(str(path), family=socket.AF_UNIX)
        self._listening.settimeout(_CONNECT_S)
        self._log = log
        self._news = threading.Condition()
        self._text = ""
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="serial port", daemon=True)

    def accept(self) -> None:
        self._connection, _ = self._listening.accept()
        self._connection.settimeout(None)
        self._reader.start()

    def wait(self, pattern: str, seconds: float) -> re.Match[str]:
        """The first match in all that came. Raises AssertionError when it does not come, or no more does."""
        with self._news:
            self._news.wait_for(lambda: self._ended or re.search(pattern, self._text), seconds)
            found = re.search(pattern, self._text)
            assert found, f"no {pattern!r} within {seconds:g} s:\n{self._text[-_TAIL:]}"
            return found

    def wait_for_end(self, seconds: float) -> None:
        """Until the machine has ended. Raises AssertionError when it does not."""
        with self._news:
            ended = self._news.wait_for(lambda: self._ended, seconds)
            assert ended, f"it did not end within {seconds:g} s:\n{self._text[-_TAIL:]}"

    def close(self) -> None:
        """The machine has ended, or never came."""
        self._listening.close()
        if self._reader.ident is not None:
            self._reader.join()
            self._connection.close()

    def _read(self) -> None:
        with self._log.open("ab", buffering=0) as log:
            while data := self._connection.recv(1 << 16):
                log.write(data)
                with self._news:
                    self._text += data.decode(errors="replace")
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Monitor:
    """QMP, a command at a time."""

    def __init__(self, path: Path) -> None:
        self._listening = socket.create_server(str(path), family=socket.AF_UNIX)
        self._listening.settimeout(_CONNECT_S)

    def accept(self) -> None:
        connection, _ = self._listening.accept()
        self._listening.close()
        self._file = connection.makefile("rw")
        connection.close()
        assert "QMP" in self._next()
        self.execute("qmp_capabilities")

    def execute(self, command: str) -> Any:
        self._file.write(json.dumps({"execute": command}) + "\n")
        self._file.flush()
        while "return" not in (answer := self._next()):
            assert "event" in answer, answer
        return answer["return"]

    def wait(self, event: str) -> dict[str, Any]:
        """The next event of this name; QEMU's end is an error."""
        while (message := self._next()).get("event") != event:
            pass
        return dict(message.get("data", {}))

    def _next(self) -> dict[str, Any]:
        line = self._file.readline()
        assert line, "QEMU ended"
        return dict(json.loads(line))

    def close(self) -> None:
        self._listening.close()
        if hasattr(self, "_file"):
            self._file.close()


class DiskMachine(AbstractContextManager["DiskMachine"]):
    """Runs until the body of `with` ends. `folder` gets its sockets and logs; `options` are QEMU's, beside
    those of every such machine.
    """

    def __init__(self, emulator: Path, folder: Path, options: Sequence[str], *, network: bool = True) -> None:
        self.port, _ = boot.free_ports()
        self.serial = SerialPort(folder / "serial.sock", folder / "console.log")
        self.monitor = Monitor(folder / "qmp.sock")
        card = network_card(self.port) if network else []
        self._argv = [*emulator_argv(emulator), *machine_options(folder), *card, *options]
        self._log = folder / "qemu.log"

    def __enter__(self) -> DiskMachine:
        self.process = proc.spawn(self._argv, log=self._log)
        try:
            self.monitor.accept()
            self.serial.accept()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.serial.close()
        self.monitor.close()

    def ssh(self, command: str, key: Path, *, timeout: float) -> proc.Completed:
        """Run a command in the guest as its user; it is there, or comes within `timeout` seconds."""
        options = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "ConnectTimeout": f"{timeout:.0f}",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["ssh", "-F", "none", "-i", key, *words, "-p", str(self.port), f"{USER}@127.0.0.1", command]
        return proc.run(argv, check=False, timeout=timeout)

    def press_power_button(self, timeout: float) -> str:
        """What QEMU says why the machine ended."""
        self.monitor.execute("system_powerdown")
        self.serial.wait_for_end(timeout)
        return str(self.monitor.wait("SHUTDOWN")["reason"])


def machine_options(folder: Path) -> list[str]:
    """Of every such machine: one CPU, 1 GiB, disks that forget what is written."""
    of_qemu = arch.current().lab
    return [
        "-machine", option(of_qemu.machine_type, {"nvdimm": True}),
        "-accel", "tcg", "-cpu", of_qemu.cpu, "-smp", "1", "-m", "1G,slots=2,maxmem=16G",
        "-display", "none", "-snapshot",
        "-chardev", option("socket", {"id": "serial", "path": folder / "serial.sock"}),
        "-serial", "chardev:serial",
        "-chardev", option("socket", {"id": "qmp", "path": folder / "qmp.sock"}),
        "-object", option("monitor-qmp", {"id": "qmp-control", "chardev": "qmp"}),
        "-object", option("rng-random", {"id": "rng", "filename": "/dev/urandom"}),
        "-device", option("virtio-rng-pci", {"rng": "rng"}),
    ]  # fmt: skip


def network_card(port: int) -> list[str]:
    """Loopback's `port` leads to the guest's SSH."""
    return [
        "-netdev", option("user", {"id": "net", "hostfwd": f"tcp:127.0.0.1:{port}-:22"}),
        "-device", option("virtio-net-pci", {"netdev": "net", "romfile": ""}),
    ]  # fmt: skip


def drive(file: Path, *devices: str, name: str = "disk") -> list[str]:
    """A raw disk, by these devices of QEMU, the last of which has it.

    The one called "disk" is what a firmware boots. Untold, SeaBIOS tries the first disk that it finds and no
    other, and it finds those of virtio before those of NVMe.
    """
    *before, last = devices
    last += ",bootindex=0" if name == "disk" else ""
    words = ["-drive", option("", {"id": name, "file": file, "format": "raw", "if": "none"})]
    return [
        *words,
        *(word for each in before for word in ("-device", each)),
        "-device",
        f"{last},drive={name}",
    ]


def persistent_memory(file: Path, device: str) -> list[str]:
    """The disk as memory, of which the guest gets a copy of what it writes to."""
    memory = {"id": "disk", "mem-path": file, "size": f"{file.stat().st_size}B", "share": False}
    return [
        "-object", option("memory-backend-file", memory),
        "-device", option(device, {"memdev": "disk"}),
    ]  # fmt: skip
