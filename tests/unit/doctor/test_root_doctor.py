# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot doctor` against made-up roots: each defect is found by its own check, and by no other."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from multiroot.arena.arena import open_or_format
from multiroot.device.uapi import ABI, LEDGER_SIZE, Bridge, CpuState, Ecam, Ledger, ffi
from multiroot.doctor.checks import Finding, Status, examine
from multiroot.doctor.root import RootDoctor
from multiroot.units import MIB

MAGIC = int.from_bytes(b"LMREDGR1", "little")
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
KMSG, MADT = "dev/kmsg", "sys/firmware/acpi/tables/APIC"
DAX = "sys/bus/dax/devices/dax0.0"
FLAGS = "fpu lm apic svm constant_tsc nonstop_tsc"
CPUINFO = (
    "processor\t: {0}\ncpu MHz\t\t: 2400.1\napicid\t\t: {0}\ninitial apicid\t: {0}\nflags\t\t: "
    + FLAGS
    + "\n"
)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A root with all it needs but module and agent, which no tree of files can make."""
    cpu = tmp_path / "sys/devices/system/cpu"
    for name, value in (("present", "0-3"), ("online", "0-3"), ("offline", "")):
        write(cpu / name, value)
    for number in range(4):
        write(cpu / f"cpu{number}/topology/thread_siblings_list", str(number))
        if number:
            write(cpu / f"cpu{number}/online", "1")
    write(tmp_path / "proc/cpuinfo", "\n".join(CPUINFO.format(number) for number in range(4)))
    write(tmp_path / "proc/cmdline", "console=ttyS1 no_ipi_broadcast=1")
    write(
        tmp_path / "proc/iomem",
        "00001000-0009fbff : System RAM\n00100000-27ffffff : System RAM\n28000000-37ffffff : Reserved",
    )
    for number, (start, end, kind) in enumerate(
        [(0, 0x9FBFF, "System RAM"), (0x100000, 0x37FFFFFF, "System RAM")]
    ):
        for name, value in (("start", hex(start)), ("end", hex(end)), ("type", kind)):
            write(tmp_path / f"sys/firmware/memmap/{number}/{name}", value)
    write(tmp_path / CLOCK, "tsc")
    write(tmp_path / "dev/kvm")
    (tmp_path / "sys/kernel/debug/kvm").mkdir(parents=True)
    write(tmp_path / KMSG, "6,0,0,-;Linux version 6.12")
    write(tmp_path / "sys/kernel/security/lockdown", "[none] integrity confidentiality")
    write(tmp_path / "sys/kernel/kexec_crash_loaded", "0")
    write(tmp_path / "sys/firmware/acpi/tables/MCFG")
    write(tmp_path / "sys/devices/system/memory/block_size_bytes", "8000000")
    dax = tmp_path / DAX
    for name, value in (("size", "0x17e00000"), ("resource", "0x100200000"), ("align", "0x200000")):
        write(dax / name, value)
    (tmp_path / "drivers/device_dax").mkdir(parents=True)
    (dax / "driver").symlink_to(tmp_path / "drivers/device_dax")
    write(tmp_path / "kernels/6.12/vmlinuz")
    write(tmp_path / "sys/class/net/mrctl0/carrier", "1")
    return tmp_path


def look(top: Path) -> dict[str, Finding]:
    doctor = RootDoctor(top, top / "dev/multiroot", top / "kernels")
    return {finding.id: finding for finding in examine(doctor.checks())}


def test_a_root_without_module_and_agent(top: Path) -> None:
    found = look(top)
    failed = {name for name, finding in found.items() if finding.status is Status.FAILED}
    assert failed == {"module", "agent"}
    assert all(finding.status is Status.OK for name, finding in found.items() if name not in failed)
    assert found["module"].mend == "modprobe multiroot"
    assert found["carve"].found == "256 MiB at 0x28000000 (reserved at boot), CPUs 2-3"
    assert found["arena"].found == "/dev/dax0.0 (device-dax), 382 MiB at 0x100200000"
    assert found["machine"].found == "memory without owners, APIC ids up to 3"
    assert "not known before multiroot.ko is loaded" in found["pci"].found
    assert found["hotplug"].found == "of CPUs 0-3 these can go offline: 1-3"


def test_a_kernel_under_kvm_counts_time_by_the_tsc_too(top: Path) -> None:
    """There the kernel takes kvm-clock when the CPU does not promise an invariant TSC."""
    replace("proc/cpuinfo", " constant_tsc nonstop_tsc", "")(top)
    replace(CLOCK, "tsc", "kvm-clock")(top)
    found = look(top)["tsc"]
    assert (found.status, found.mend) == (Status.OK, "")
    assert "kvm-clock" in found.found
    assert "host" in found.found


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(top: Path) -> None:
        text = (top / path).read_text()
        assert old in text
        (top / path).write_text(text.replace(old, new))

    return change


def remove(*paths: str) -> Callable[[Path], None]:
    def change(top: Path) -> None:
        for path in paths:
            (top / path).unlink()

    return change


def put(path: str, text: str) -> Callable[[Path], None]:
    return lambda top: write(top / path, text)


def guests(*counts: tuple[int, int]) -> Callable[[Path], None]:
    """VMs for which KVM has mapped so many pages of 4 KiB and of 2 MiB."""

    def change(top: Path) -> None:
        for pid, (small, large) in enumerate(counts, 300):
            for name, count in (("pages_4k", small), ("pages_2m", large), ("pages_1g", 0)):
                write(top / f"sys/kernel/debug/kvm/{pid}-{pid - 280}/{name}", str(count))

    return change


SNP, TDX = "sys/module/kvm_amd/parameters/sev_snp", "sys/module/kvm_intel/parameters/tdx"
LOCKDOWN = "sys/kernel/security/lockdown"
CRASH_KERNEL = replace("proc/cmdline", "console", "elfcorehdr=0x1000 console")


MORE_RAM = "28000000-2fffffff : System RAM\n30000000-"
ACTIVE = "6,84,120000,-;Memory Encryption Features active:"


def local(hardware_id: int, flags: int = 1) -> bytes:
    """A CPU in the MADT (ACPI specification 6.5, 5.2.12.2). `flags`: 1: it is there, 2: it may be later."""
    return struct.pack("<BBBBI", 0, 8, hardware_id, hardware_id, flags)


def wide(hardware_id: int, flags: int = 1) -> bytes:
    """The same for large ids (5.2.12.12)."""
    return struct.pack("<BBHIII", 9, 16, 0, hardware_id, flags, 0)


def offline(*entries: bytes) -> Callable[[Path], None]:
    """CPU 3 is not in /proc/cpuinfo, and the firmware's table has these entries."""

    def change(top: Path) -> None:
        write(top / "proc/cpuinfo", "\n".join(CPUINFO.format(number) for number in range(3)))
        other = struct.pack("<BBBxII", 1, 12, 0, 0xFEC00000, 0)
        body = b"\0" * 8 + other + b"".join(entries)
        (top / MADT).write_bytes(struct.pack("<4sI28x", b"APIC", 36 + len(body)) + body)

    return change


def memory(**fields: Any) -> Callable[[Path], None]:
    """/proc/kcore with a ledger where the module would put one."""
    raw = ffi.new("struct multiroot_ledger *", {"magic": MAGIC, "abi": ABI, "size": LEDGER_SIZE, **fields})
    ledger = bytes(ffi.buffer(raw)).ljust(LEDGER_SIZE, b"\0")
    vmalloc = struct.pack("<IIQQQQQQ", 1, 7, 0x2000, 0, 2**64 - 1, 0x1000, 0x1000, 0)
    low = struct.pack("<IIQQQQQQ", 1, 7, 0x2000, 0, 0x1000, 0x9E000, 0x9E000, 0)
    header = struct.pack("<4sBB26xQ14xHH4x", b"\x7fELF", 2, 1, 64, 56, 2) + b"\0" * 2
    text = (header + vmalloc + low).ljust(0x2000 + 0xF000, b"\0") + ledger + b"\0" * 0x7F000

    def change(top: Path) -> None:
        (top / "proc/kcore").write_bytes(text)

    return change


def cpu(place: int, root: int, state: CpuState) -> dict[str, Any]:
    """The entries of the ledger's CPUs up to that one."""
    return {"cpu": [(0, 0, 0)] * place + [(root, state, 0)]}


ONLINE = [f"sys/devices/system/cpu/cpu{number}/online" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("check", "status", "says", "change"),
    [
        ("cpu", "failed", "no virtual machines", replace("proc/cpuinfo", " svm", "")),
        ("cpu", "failed", "not an x86-64 CPU", replace("proc/cpuinfo", " lm", "")),
        ("machine", "failed", "tdx_host_platform", replace("proc/cpuinfo", " svm", " svm tdx_host_platform")),
        ("machine", "failed", "whose ever it is later: hfi", replace("proc/cpuinfo", " svm", " svm hfi")),
        ("machine", "failed", "SEV-SNP", put(SNP, "Y")),
        ("machine", "failed", "TDX", put(TDX, "Y")),
        ("machine", "failed", "encrypts its memory", replace("proc/cpuinfo", " svm", " svm sme sev")),
        ("machine", "failed", "encrypts its memory", put(KMSG, f"6,0,0,-;Linux version\n{ACTIVE} AMD SEV")),
        ("machine", "failed", "APIC id 288", replace("proc/cpuinfo", "apicid\t\t: 3\n", "apicid\t\t: 288\n")),
        ("kernel", "failed", "locked down", put(LOCKDOWN, "none [integrity] confidentiality")),
        ("kernel", "failed", "a crash kernel", CRASH_KERNEL),
        ("kernel", "failed", "probes are off", put("proc/sys/kernel/ftrace_enabled", "0")),
        ("kernel", "failed", "probes are off", put("sys/kernel/debug/kprobes/enabled", "0")),
        ("kernel", "warning", "crash kernel is loaded", put("sys/kernel/kexec_crash_loaded", "1")),
        ("pci", "warning", "drives dmar0", put("sys/class/iommu/dmar0/x", "")),
        ("ledger", "failed", "of ABI 99", memory(abi=99)),
        ("ledger", "failed", "root 2 lives", memory(**cpu(287, 2, CpuState.STARTED))),
        ("ledger", "failed", "APIC id 7", memory(boot_hardware_id=7, **cpu(7, 1, CpuState.ONLINE))),
        ("kvm", "failed", "no /dev/kvm", remove("dev/kvm")),
        ("tsc", "warning", "does not promise nonstop_tsc", replace("proc/cpuinfo", " nonstop_tsc", "")),
        (
            "tsc",
            "failed",
            "the clock source is hpet",
            replace(CLOCK, "tsc", "hpet"),
        ),
        ("ipi", "warning", "shorthand interrupts", replace("proc/cmdline", " no_ipi_broadcast=1", "")),
        ("ipi", "warning", "shorthand interrupts", replace("proc/cmdline", "broadcast=1", "broadcast=0")),
        ("hotplug", "failed", "no CPU can go offline", remove(*ONLINE)),
        ("carve", "failed", "no room", replace("proc/iomem", "Reserved", "System RAM")),
        ("arena", "failed", "aligned to 0x1000", replace(f"{DAX}/align", "0x200000", "0x1000")),
        ("arena", "failed", "no persistent memory", remove(f"{DAX}/driver")),
        ("pages", "warning", "npt is off", put("sys/module/kvm_amd/parameters/npt", "N")),
        ("pages", "warning", "ept is off", put("sys/module/kvm_intel/parameters/ept", "0")),
        ("pages", "warning", "by small pages: 12000 of 4 KiB, 40 of 2 MiB", guests((12000, 40))),
        ("pages", "warning", "by small pages: 6000 of 4 KiB, 100 of 2 MiB", guests((300, 60), (5700, 40))),
        ("carve", "warning", "128 MiB at 0x30000000", replace("proc/iomem", "28000000-", MORE_RAM)),
        ("pages", "warning", "does not tell", lambda top: (top / "sys/kernel/debug/kvm").rmdir()),
        ("kernels", "warning", "no kernel in", remove("kernels/6.12/vmlinuz")),
    ],
)  # fmt: skip
def test_a_defect_is_found_by_its_own_check(
    top: Path, check: str, status: str, says: str, change: Callable[[Path], None]
) -> None:
    sound = look(top)
    change(top)
    found = look(top)
    assert (found[check].status, says in found[check].found) == (status, True), found[check]
    assert found[check].mend
    assert [name for name in found if found[name] != sound[name]] == [check]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("sys/module/kvm_amd/parameters/npt", "Y"), "no guest runs here"),
        (lambda top: guests((12, 40))(top), "by these pages: 12 of 4 KiB, 40 of 2 MiB"),
    ],
)
def test_large_pages_are_as_it_should_be(top: Path, change: Callable[[Path], None], says: str) -> None:
    change(top)
    found = look(top)["pages"]
    assert (found.status, says in found.found) == (Status.OK, True), found


def test_a_cpu_that_is_offline_is_looked_at_too(top: Path) -> None:
    offline(local(0), local(1), local(2), wide(300))(top)
    found = look(top)["machine"]
    assert (found.status, "a CPU has the APIC id 300" in found.found) == (Status.FAILED, True), found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (offline(local(0), local(1), local(2), local(9), local(200, 2)), "ids up to 9"),
        # Some kernel parameter has left one out, and who it is nobody says.
        (offline(local(0), local(1), local(2), local(9), local(10)), "ids up to 2 (of CPUs that are online)"),
        (lambda top: offline()(top) or (top / MADT).unlink(), "ids up to 2 (of CPUs that are online)"),
        (replace("proc/cmdline", "con", "mem_encrypt=on con"), "memory without owners, "),
        (replace("proc/cpuinfo", " svm", " svm sev sev_es"), "memory without owners, "),
        (put(KMSG, "6,700,9000,-;eth0: link up"), "without owners as far as its kernel's messages go back,"),
        (remove(KMSG), "without owners as far as its kernel's messages go back,"),
    ],
)
def test_what_harms_nobody_and_what_is_not_known_of_a_machine(
    top: Path, change: Callable[[Path], None], says: str
) -> None:
    change(top)
    found = look(top)["machine"]
    assert (found.status, says in found.found) == (Status.OK, True), found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (memory(magic=0), "none at 0x10000 yet"),
        # This kernel has that CPU, so nobody else lives on it.
        (memory(**cpu(3, 2, CpuState.STARTED)), "nobody lives"),
        (memory(boot_hardware_id=3, **cpu(9, 1, CpuState.ONLINE)), "nobody lives"),
        (memory(**cpu(9, 2, CpuState.PARKED)), "nobody lives"),
        (put("proc/kcore", "what is this?"), "none at 0x10000 yet"),
    ],
)
def test_a_ledger_of_before_that_harms_nobody(top: Path, change: Callable[[Path], None], says: str) -> None:
    change(top)
    found = look(top)["ledger"]
    assert (found.status, says in found.found) == (Status.OK, True), found


class Module:
    """A module whose root 2 has ended, on a machine with two host bridges, of two segments."""

    ecams: ClassVar[list[Ecam]] = [Ecam(0xB0000000, 0, 255, segment=1)]

    def __init__(self, path: Path) -> None:
        """Like Device."""

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *error: object) -> None:
        """Like Device."""

    def info(self) -> Any:
        return SimpleNamespace(
            abi=2,
            root=1,
            wide_ids=False,
            carved=True,
            carve_size=1 << 30,
            carve_base=0,
            has_parent=False,
            ledger=0x10000,
        )

    def has_ended(self, root: int) -> bool:
        return root == 2

    def ledger(self) -> Ledger:
        bridges = (Bridge(0, 0, 0x3F), Bridge(1, 0x40, 0x7F))
        return Ledger(3, 1, 0, (), {}, ecams=tuple(self.ecams), bridges=bridges)


def test_vms_that_were_lost_with_their_root_are_named_with_what_frees_them(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiroot.doctor.root.Device", Module)
    node = top / "dev/dax0.0"
    with node.open("wb") as file:
        file.truncate(32 * MIB)
    assert look(top)["arena"].status is Status.OK
    for root, name in enumerate(("web", "db"), 1):
        with closing(open_or_format(node, root)) as arena:
            arena.allocate(name, 2 * MIB, 1)
            arena.allocate(f".tables-{name}", 2 * MIB, 1)
    found = look(top)["arena"]
    assert (found.status, found.found.partition("; ")[2]) == (Status.WARNING, "VMs lost with their roots: db")
    assert found.mend == "free their memory: multiroot vm forget db"


def test_each_host_bridge_is_looked_for_in_the_ledger(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later root has no firmware tables that could say it. Ports lead to segment 0, whatever is said."""
    monkeypatch.setattr("multiroot.doctor.root.Device", Module)
    (top / "sys/firmware/acpi/tables/MCFG").unlink()
    assert look(top)["pci"].status is Status.OK
    monkeypatch.setattr(Module, "ecams", [Ecam(0xB0000000, 0, 0xFF), Ecam(0xB0000000, 0, 0x3F, segment=1)])
    found = look(top)["pci"]
    assert (found.status, "bus 0001:40" in found.found) == (Status.FAILED, True)


def test_a_tree_of_nothing_fails_every_check_and_raises_nothing(tmp_path: Path) -> None:
    found = look(tmp_path)
    warnings = ("kernels", "pages")
    assert {finding.status for name, finding in found.items() if name not in warnings} == {Status.FAILED}
