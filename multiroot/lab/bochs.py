# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine emulated by Bochs, with its serial consoles: run a command in a root, wait for what it says.

Consoles are pseudo-terminals. The emulated serial port has a buffer of 16 bytes and no flow control, so what
is typed goes in small pieces, each when the echo of the one before has come.

Limits are seconds of the emulator's CPU time, for on a busy workstation it may get little of that.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import threading
import tty
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import PeerLostError, WaitTimeoutError
from multiroot.lab import paths, roots
from multiroot.lab.vmx import VmxParts
from multiroot.units import MIB

_PIECE = 8  # half of the port's buffer: a kernel that polls its port looks every 4 ms
_ECHO_S = 20.0  # for an echo to come
_LOOK_S = 0.1  # how often the emulator's CPU time is looked at
_END_S = 20.0  # wall clock, to end after a signal
_HOST_MEMORY = 2048  # MiB, the most that Bochs takes; it puts more into a file
# In its log, at the machine's own start and at every reset; and a triple fault.
_RESET = re.compile(r"bx_pc_system_c::Reset\(")
_TRIPLE_FAULT = re.compile(r"exception\(\): 3rd \(")


class Console:
    """One serial port: all that came from it, and a way to type into it. `spent` tells the emulator's CPU
    time.
    """

    def __init__(self, name: str, log: Path, spent: Callable[[], float]) -> None:
        self.name = name
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self._log = log
        self._spent = spent
        self._text = ""
        self._come = threading.Condition()
        self._open = True
        self._closing, self._close = os.pipe()
        self._commands = 0
        self._reader = threading.Thread(target=self._read, name=f"console {name}", daemon=True)
        self._reader.start()

    def text(self, since: int = 0) -> str:
        """All that came, from the character `since` on."""
        with self._come:
            return self._text[since:]

    def wait(self, pattern: str, seconds: float, since: int = 0) -> re.Match[str]:
        """The first match behind the character `since`. Raises WaitTimeoutError, or PeerLostError when the
        machine has ended.
        """
        looked = re.compile(pattern, re.MULTILINE | re.DOTALL)
        until = self._spent() + seconds
        with self._come:
            while not (found := looked.search(self._text, since)):
                if not self._open:
                    raise PeerLostError(f"the machine has ended; {self.name} never said {pattern!r}")
                if not self._come.wait(_LOOK_S) and self._spent() >= until:
                    raise WaitTimeoutError(
                        f"{self.name} did not say {pattern!r} in {seconds:g} s", f"see {self._log}"
                    )
            return found

    def type(self, line: str) -> None:
        """Type a line, and the end of it. What a kernel says meanwhile may come in between."""
        for at in range(0, len(line), _PIECE):
            piece = line[at : at + _PIECE]
            since = len(self.text())
            self._send(piece)
            self.wait(".*?".join(re.escape(each) for each in piece), _ECHO_S, since)
        self._send("\n")

    def run(self, line: str, seconds: float) -> proc.Completed:
        """Run a command line in the shell there. Its output has both streams, and kernel messages in it."""
        self._commands += 1
        since = len(self.text())
        # The mark is typed in two halves, so that its echo is none.
        self.type(f"{line}; echo '=''={self._commands}:'$?=")
        found = self.wait(rf"=={self._commands}:(\d+)=", seconds, since)
        output = self.text(since)[: found.start() - since].replace("\r", "").partition("\n")[2]
        return proc.Completed((line,), int(found[1]), output, "")

    def close(self) -> None:
        """The machine has ended: whoever waits is told."""
        os.write(self._close, b"!")
        self._reader.join(_END_S)
        with self._come:
            self._open = False
            self._come.notify_all()
        for fd in (self._master, self._slave, self._closing, self._close):
            os.close(fd)

    def _send(self, text: str) -> None:
        with self._come:
            if not self._open:
                raise PeerLostError(f"the machine has ended; {text!r} was not typed on {self.name}")
            os.write(self._master, text.encode())

    def _read(self) -> None:
        with self._log.open("ab", buffering=0) as log:
            # What it said last comes before the news that it has ended.
            while self._master in select.select([self._master, self._closing], [], [])[0]:
                data = os.read(self._master, 1 << 16)
                log.write(data)
                with self._come:
                    self._text += data.decode(errors="replace")
                    self._come.notify_all()


@dataclass(frozen=True)
class _Files:
    """What Bochs is run with."""

    config: Path
    log: Path
    screen: Path


class Bochs:
    """A machine that runs until `end`; `folder` gets its logs."""

    def __init__(self, parts: VmxParts, folder: Path, cpus: int) -> None:
        paths.make_dir(folder)
        self.cpus = cpus
        self._files = _Files(folder / "bochsrc", folder / "bochs.log", folder / "screen.log")
        self._process: subprocess.Popen[bytes] | None = None
        self.com1, self.com2 = (
            Console(name, folder / f"{name}.log", self.cpu_seconds) for name in ("com1", "com2")
        )
        self._files.config.write_text(self._configuration(parts, cpus))
        self._process = self._start(parts.tree)
        self._watch = threading.Thread(target=self._wait, name="bochs", daemon=True)
        self._watch.start()

    def cpu_seconds(self) -> float:
        """CPU time that the emulator has had; 0 when it does not run."""
        if not self._process:
            return 0.0
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def alive(self) -> bool:
        """Whether the emulator runs; it ends with a triple fault."""
        return self._process is not None and self._process.poll() is None

    def resets(self) -> list[str]:
        """What the log tells of resets after the machine's start, and of triple faults. Complete only when
        the machine has ended, for the log is written in blocks.
        """
        return resets_told(self._files.log.read_text(errors="replace"))

    def end(self) -> None:
        """End the emulator; its log is complete then."""
        process = self._process
        assert process
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
        self._watch.join(_END_S)

    def _wait(self) -> None:
        assert self._process
        self._process.wait()
        for console in (self.com1, self.com2):
            console.close()

    def _configuration(self, parts: VmxParts, cpus: int) -> str:
        memory = parts.layout.ram // MIB
        words = {
            "CPUS": cpus,
            "IPS": parts.ips,
            "GUEST": memory,
            "HOST": min(memory, _HOST_MEMORY),
            "SHARE": parts.tree / "usr/share/bochs",
            "DISC": parts.disc,
            "IMAGE": parts.image,
            "FOLDER": self._files.config.parent,
            "COM1": self.com1.device,
            "COM2": self.com2.device,
        }
        text = (paths.recipes_dir() / "vmx/bochsrc").read_text()
        return re.sub("@([A-Z0-9]+)@", lambda word: str(words[word[1]]), text)

    def _start(self, tree: Path) -> subprocess.Popen[bytes]:
        environment = {
            "BXSHARE": str(tree / "usr/share/bochs"),
            "LTDL_LIBRARY_PATH": str(tree / arch.current().lab.libraries / "bochs/plugins"),
            "TERM": "vt100",
            "TERMINFO": str(tree / "usr/share/terminfo"),
        }
        # A console becomes its terminal: it ends with us, by SIGHUP.
        argv = [*roots.loader_argv(tree, "bin/bochs-bin"), "-q", "-f", str(self._files.config)]
        return proc.spawn(argv, log=self._files.screen, env=environment)


def resets_told(log: str) -> list[str]:
    """The lines of a log that tell of a reset, but for the machine's start, or of a triple fault."""
    lines = log.splitlines()
    resets = [line for line in lines if _RESET.search(line)][1:]
    return resets + [line for line in lines if _TRIPLE_FAULT.search(line)]
