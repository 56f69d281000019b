# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernels of a lab machine are and have said: consoles, taint flags, leaks, and which image really
ran.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import grpc

from multiroot.errors import MultirootError
from multiroot.lab import execution
from multiroot.lab.execution import Channel, Result
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import console_text
from multiroot.proc import how_ended_in_shell
from multiroot.root.memory_client import RootMemory, need_info
from multiroot.rpc import client
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import memory_pb2_grpc, vm_pb2, vm_pb2_grpc
from multiroot.verdict.elf import build_id_in_notes
from multiroot.verdict.findings import Finding, Source, find, of_taint
from multiroot.vmcore import traces
from multiroot.vmcore.space import UnmappedError

ASK_S = 60.0  # for a root to answer, on a busy computer
_SCAN_S = 900.0  # kmemleak reads all memory twice; kernels that have it are slow
GUEST_S = 30.0
KERNELS = "/usr/lib/multiroot/kernels"
_FACTS = """
echo "release $(uname -r)"
echo "tainted $(cat /proc/sys/kernel/tainted)"
for file in /sys/module/*/taint; do
	read -r letters <$file && [ "$letters" ] && echo "module ${file#/sys/module/} $letters"
done
echo "notes $(od -An -v -tx1 /sys/kernel/notes | tr -d ' \\n')"
"""
# An object is no leak before it is 5 s old (mm/kmemleak.c, MSECS_MIN_AGE), and is one when two scans have
# missed it. A kernel whose kmemleak is off has the file, and refuses scans.
LEAKS = """
[ -e "$1" ] || mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
[ -e "$1" ] || exit 4
echo scan >"$1" && sleep "$2" && echo scan >"$1" && cat "$1"
"""
_KMEMLEAK, _AGE_S = "/sys/kernel/debug/kmemleak", 6
NOT_THERE = 4
_MODULE = re.compile(r"(?P<name>[^/]+)/taint (?P<letters>\w+)")


@dataclass(frozen=True)
class Image:
    """A kernel's image: what it is called in the lab, its release, its sha256 and its build-id ("": it has
    none).
    """

    name: str
    release: str
    sha256: str
    build_id: str = ""

    def __str__(self) -> str:
        return f"{self.release}, sha256 {self.sha256[:16]}, build-id {self.build_id[:16] or 'none'}"


@dataclass(frozen=True)
class Facts:
    """What a root says of its kernel."""

    release: str
    tainted: int
    modules: dict[str, str]
    build_id: str


UNKNOWN = Facts("", 0, {}, "")  # of one that does not answer


@dataclass(frozen=True)
class Scan:
    """What kmemleak has found, and why it did not look ("": it did)."""

    found: tuple[Finding, ...] = ()
    why_none: str = ""


@dataclass(frozen=True)
class Answer:
    """What a kernel said when it was asked; `called` is what a report calls its root."""

    called: str
    source: Source
    facts: Facts
    scan: Scan


@dataclass(frozen=True)
class Identity:
    """Which image was asked for in a root, and which one really ran there. `where` is its console, `called`
    what a report calls it.
    """

    where: str
    asked: Image
    ran: Image
    called: str

    @property
    def same(self) -> bool:
        """A build-id counts where both have one."""
        ids = (self.asked.build_id, self.ran.build_id)
        return (
            self.asked.sha256 == self.ran.sha256
            and self.asked.release == self.ran.release
            and (not all(ids) or ids[0] == ids[1])
        )


# Runs a command in a root or a guest, which may be silent for so many seconds. Raises MultirootError.
Ask = Callable[[Sequence[str], float], Result]


def in_root(lab: Lab, name: str) -> Ask:
    """A root that is reached by `name`."""
    return lambda argv, timeout: lab.run(argv, root=name, timeout=timeout)


def in_guest(reach: Callable[[], Channel]) -> Ask:
    """A guest that takes commands."""

    def ask(argv: Sequence[str], timeout: float) -> Result:
        with closing(reach()) as channel:
            return execution.run(channel, argv, timeout=timeout)

    return ask


def facts(ask: Ask) -> Facts:
    """What a kernel is. Raises MultirootError."""
    return parse_facts(ask(["sh", "-c", _FACTS], ASK_S).stdout)


def parse_facts(text: str) -> Facts:
    """What the script printed; raises MultirootError if that is something else."""
    told: dict[str, str] = {}
    modules: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        match = _MODULE.fullmatch(rest)
        if word == "module" and match:
            modules[match["name"]] = match["letters"]
        else:
            told[word] = rest.strip()
    try:
        notes = bytes.fromhex(told["notes"])
        return Facts(told["release"], int(told["tainted"]), modules, build_id_in_notes(notes))
    except (KeyError, ValueError) as error:
        raise MultirootError(f"the root says nothing of its kernel: {text[:200]!r}") from error


def ran_old(lab: Lab, told: Facts) -> Image:
    """The image that the machine was booted with."""
    machine = lab.state.machine
    return Image(machine.kernel, told.release, sha256_of(machine.vmlinuz), told.build_id)


def ran_new(lab: Lab, name: str, told: Facts) -> Image:
    """The image that the old root, in which `name` lies, has started."""
    said = lab.run(["sha256sum", f"{KERNELS}/{name}/vmlinuz"], timeout=ASK_S).stdout
    return Image(name, told.release, said.partition(" ")[0], told.build_id)


@lru_cache(maxsize=16)
def sha256_of(path: Path) -> str:
    """Of a file, hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leaks(ask: Ask, source: Source) -> Scan:
    """What kmemleak finds there in two scans. Raises MultirootError."""
    argv = ["sh", "-c", LEAKS, "sh", _KMEMLEAK, str(_AGE_S)]
    return scanned(ask(argv, _SCAN_S), source)


def scanned(done: Result, source: Source) -> Scan:
    """What the script has left."""
    if done.returncode == NOT_THERE:
        return Scan(why_none="its kernel is built without it")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [how_ended_in_shell(done.returncode)]
        return Scan(why_none=f"it does not scan, and may be off: {said[-1]}")
    found = find(done.stdout.splitlines(), source.where, source.release, source.boot)
    return Scan(tuple(found))


def consoles(folder: Path, roots: Sequence[str] = ("old", "new")) -> list[Finding]:
    """Every trouble that the consoles of a lab in `folder` tell of."""
    return [each for root in roots for each in find(console_text(folder, root).split("\n"), root)]


def guest_console(lab: Lab, name: str, root: str | None) -> bytes:
    """What a root has kept of a VM's output; None is the root that is alone. Raises MultirootError."""
    request = vm_pb2.ConsoleRequest(name=name, history=True, kept_only=True)
    with (
        translated(f"the {root or 'new'} root's agent"),
        client.connect(lab.agent_address, root=root) as channel,
    ):
        return _output(channel, request)


def _output(channel: grpc.Channel, request: vm_pb2.ConsoleRequest) -> bytes:
    call = vm_pb2_grpc.VmServiceStub(channel).Console(iter([request]), timeout=GUEST_S)
    return b"".join(answer.output for answer in call)


def taints(answer: Answer, seen: Sequence[Finding]) -> list[Finding]:
    """Taint flags that nothing in `seen` explains."""
    return of_taint(answer.facts.tainted, answer.facts.modules, answer.source, seen)


def backtraces(lab: Lab) -> list[str]:
    """What the CPUs of a new root did that has died or stands still, by its memory. Raises MultirootError."""
    with client.connect(lab.agent_address, root="old") as channel:
        memory = RootMemory.of(memory_pb2_grpc.MemoryServiceStub(channel), "new")
        try:
            found = traces.of_all(memory.tables(), need_info(memory), memory.parked)
        except UnmappedError as error:
            raise MultirootError(f"what its CPUs did cannot be read: {error}") from error
    return traces.lines(found)
