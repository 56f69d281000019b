# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks whether the machine and this kernel can have another root beside it: what multiroot.ko would refuse,
or what a later root could not end, is told here beforehand. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch
from multiroot.device.uapi import ABI, LEDGER_CPUS, Bridge, Ecam, Ledger
from multiroot.doctor import left_ledger
from multiroot.doctor.checks import Answer, failed, ok, warning
from multiroot.root.identity import parse_command_line
from multiroot.units import format_size, parse_cpu_list
from multiroot.vm.oom import KMSG, from_the_start, read_log

# What turns probes off, and the way back. By them the end of a root is not the machine's.
_PROBES = {
    "proc/sys/kernel/ftrace_enabled": "sysctl kernel.ftrace_enabled=1",
    "sys/kernel/debug/kprobes/enabled": "echo 1 >/sys/kernel/debug/kprobes/enabled",
}
_ON = ("1", "y", "Y", "on")


@dataclass(frozen=True)
class MachineDoctor:
    """The checks; files are looked for below `top`."""

    top: Path

    def cpus(self) -> Answer:
        """Memory that is no other root's to read, CPUs for which the ledger has no place."""
        cpuinfo, ours, memory = self._text("proc/cpuinfo"), arch.current().cpus, arch.current().memory
        owners = sorted(ours.features(cpuinfo) & memory.owner_features)
        owners += [name for name, file in memory.owner_files.items() if self._optional(file) in _ON]
        if owners:
            return failed(
                f"memory has owners that no other root knows of: {', '.join(owners)}",
                "turn it off in the firmware",
            )
        encrypts, all_said = self._said(memory.encrypted_says)
        if encrypts or ours.features(cpuinfo) & memory.encrypted_features:
            return failed(
                "this kernel encrypts its memory, which no other root could read",
                f"boot with {memory.encrypted_by}=off; start a virtual machine without encryption",
            )
        writing = ",".join(sorted(ours.features(cpuinfo) & ours.writing))
        if writing:
            return failed(
                f"the CPUs write to this kernel's memory, whose ever it is later: {writing}",
                f"boot with {ours.cleared_by}={writing}",
            )
        ids, all_ids = self._hardware_ids(cpuinfo)
        highest = max(ids, default=0)
        if highest >= LEDGER_CPUS:
            return failed(
                f"a CPU has the {ours.id_name} {highest}, the ledger has room for ids below {LEDGER_CPUS}",
                "use a machine with fewer CPUs",
            )
        back = "" if all_said else " as far as its kernel's messages go back"
        online = "" if all_ids else " (of CPUs that are online)"
        return ok(f"memory without owners{back}, {ours.id_name}s up to {highest}{online}")

    def kernel(self) -> Answer:
        """What this kernel forbids, and what it must not do while two roots live."""
        if "elfcorehdr" in self._parameters():
            return failed("this is a crash kernel", "reboot")
        for file, mend in _PROBES.items():
            if self._optional(file) == "0":
                return failed(f"probes are off ({file}): the end of this root would end the machine", mend)
        lockdown = self._optional("sys/kernel/security/lockdown")
        if lockdown and "[none]" not in lockdown:
            return failed(
                f"this kernel is locked down: {lockdown}", "turn Secure Boot off, and boot without lockdown="
            )
        if self._optional("sys/kernel/kexec_crash_loaded") == "1":
            mend = "while two roots live, look at the messages in `multiroot root console`; or: kexec -p -u"
            return warning("a crash kernel is loaded; it is not started while two roots live", mend)
        return ok(
            "not locked down; kexec, crash kernels, sleep and late microcode are off while two roots live"
        )

    def ledger(self) -> Answer:
        """A ledger that lies in memory before this kernel's module has made or joined one."""
        here = set(arch.current().cpus.hardware_ids(self._text("proc/cpuinfo")).values())
        where = arch.current().memory.ledger
        left = left_ledger.look(self.top / "proc/kcore", where)
        if left is None:
            return ok(f"none at {where.base:#x} yet, as far as this kernel shows that memory")
        if left.abi != ABI:
            return failed(
                f"the ledger at {where.base:#x} is of ABI {left.abi}, not {ABI}",
                "if no root lives, turn the machine off once",
            )
        away = {root: cpu for cpu, root in left.lives.items() if cpu not in here}
        if away:
            root, cpu = next(iter(away.items()))
            return failed(
                f"root {root} lives by the ledger at {where.base:#x}, on the CPU with the "
                f"{arch.current().cpus.id_name} {cpu}, which is not online here",
                "this is a second kernel on a machine that was not reset: reset it",
            )
        return ok(f"one at {where.base:#x}, by which nobody lives any more")

    def pci(self, ledger: Ledger | None) -> Answer:
        """Whether a later root can stop the DMA of this one, as the ledger tells: ports lead to segment 0.
        Without the module there is no ledger that would tell.
        """
        bridges, ecams = (ledger.bridges, ledger.ecams) if ledger else ((), ())
        unreached = [bridge for bridge in bridges if bridge.segment and not _reached(bridge, ecams)]
        if unreached:
            where = ", ".join(f"bus {bridge.segment:04x}:{bridge.bus_first:02x}" for bridge in unreached)
            return failed(
                f"no memory-mapped configuration space of {where}: nobody could stop this root's devices "
                "when it has ended",
                f"see whether the firmware has it: ls /{arch.current().memory.config_space_table}",
            )
        units = sorted(path.name for path in (self.top / "sys/class/iommu").glob("*"))
        driven = [name for name in units if not name.startswith("multiroot")]
        block = format_size(int(self._text("sys/devices/system/memory/block_size_bytes").strip(), 16))
        rest = f"memory goes from root to root in blocks of {block}"
        if driven:
            mend = "only if VMs are to own devices: boot with intel_iommu=off intremap=off"
            return warning(
                f"this kernel drives {', '.join(driven)}, so VMs can own no devices; the next root turns it "
                f"off; {rest}",
                mend,
            )
        if ledger is None:
            return ok(
                f"whether all devices can be reached is not known before multiroot.ko is loaded; {rest}"
            )
        return ok(f"all devices can be reached; {rest}")

    def _parameters(self) -> dict[str, str]:
        return parse_command_line(self._text("proc/cmdline"))

    def _said(self, message: str) -> tuple[bool, bool]:
        """Whether this kernel has said that, and whether all that it has said is known."""
        log = self.top / str(KMSG).lstrip("/")
        records, gap = read_log(log) if log.exists() else ([], True)
        return any(message in record for record in records), not gap and from_the_start(records)

    def _hardware_ids(self, cpuinfo: str) -> tuple[frozenset[int], bool]:
        """Of the CPUs that are present, and whether these are all: /proc/cpuinfo has the online ones."""
        ours = arch.current().cpus
        online = ours.hardware_ids(cpuinfo)
        present = parse_cpu_list(self._text("sys/devices/system/cpu/present"))
        if set(present) <= online.keys():
            return frozenset(online.values()), True
        table = self.top / ours.table
        ids = ours.table_ids(table.read_bytes()) if table.exists() else frozenset()
        # A kernel may have been told to have fewer than there are, or was given some later.
        return (ids, True) if len(ids) == len(present) else (frozenset(online.values()), False)

    def _optional(self, path: str) -> str:
        """What is in a file that not every kernel has; "" without it."""
        file = self.top / path
        return file.read_text().strip() if file.exists() else ""

    def _text(self, path: str) -> str:
        return (self.top / path).read_text()


def _reached(bridge: Bridge, ecams: Sequence[Ecam]) -> bool:
    return all(
        any(ecam.has(bridge.segment, bus) for ecam in ecams)
        for bus in range(bridge.bus_first, bridge.bus_last + 1)
    )
