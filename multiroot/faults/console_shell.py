# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in a root by its serial console: the only way in when the root with the network card is dead."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

from multiroot.errors import PeerLostError, WaitTimeoutError

_CHUNK = 1 << 16

# What there is of a VM in this root: state, owner, VMMs, and how its guest ticked.
_LOOK = """
import json, subprocess
from pathlib import Path
from multiroot.vm.history import read_history
from multiroot.vm.ticks import continuity, parse
vms = json.loads(subprocess.run(["multiroot", "vm", "list", "--json"], capture_output=True).stdout or "[]")
vm = next((vm for vm in vms if vm["name"] == NAME), {})
vmms = subprocess.run(["pgrep", "-c", "-f", "guest=" + NAME], capture_output=True, text=True).stdout
record = Path("/run/multiroot/vms") / NAME / "console.rec"
pieces = [(piece.at_ns, piece.data) for piece in read_history(record)] if record.exists() else []
seen = continuity(parse(pieces).ticks)
print(json.dumps({
    "state": vm.get("state", ""), "owner": vm.get("owner", 0), "epoch": vm.get("epoch", 0), "vmms": int(vmms),
    "last": seen.last if seen else 0, "missing": len(seen.missing) if seen else 0,
    "repeated": len(seen.repeated) if seen else 0, "bad": seen.bad_bytes if seen else 0,
}))
"""


class ConsoleShell:
    """The shell on a console; `path` is the recorder's socket for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def look(self, vm: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """A VM in that root. Raises PeerLostError, WaitTimeoutError."""
        script = f"NAME = {vm!r}\n{_LOOK}"
        found: dict[str, Any] = json.loads(self.run(f"python3 -c {_quoted(script)}", timeout_s))
        return found

    def run(self, command: str, timeout_s: float) -> str:
        """What a command prints, without what the kernel says on lines of its own in between."""
        self._count += 1
        # What is typed is echoed, so the marks in it are not those that are printed.
        line = f"printf '%s%s\\n' BEGIN- {self._count}; {command}; printf '%s%s\\n' END- {self._count}\n"
        said = self._talk(line, f"END-{self._count}", timeout_s)
        between = said.rpartition(f"BEGIN-{self._count}")[2].partition(f"END-{self._count}")[0]
        lines = [each for each in between.replace("\r", "").split("\n") if each]
        return "\n".join(each for each in lines if not re.match(r"\[ *\d+\.\d+\]", each))

    def _talk(self, line: str, end: str, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        said = b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.connect(str(self._path))
            console.sendall(line.encode())
            while end.encode() + b"\r" not in said and end.encode() + b"\n" not in said:
                console.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    data = console.recv(_CHUNK)
                except TimeoutError as error:
                    raise WaitTimeoutError(f"the console said nothing for {timeout_s:g} s") from error
                if not data:
                    raise PeerLostError("the console is gone")
                said += data
        return said.decode(errors="replace")


def _quoted(script: str) -> str:
    """For the shell, on one line."""
    escaped = script.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"
