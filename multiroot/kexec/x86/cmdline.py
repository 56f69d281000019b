# SPDX-License-Identifier: GPL-2.0-or-later
"""The new root's kernel command line: what it needs to live beside another kernel, then the user's own.

What we set is the table `OWN`, what would break a root beside another one is the table `REFUSED`. Both are
compared with the user's part by the kernel's own rules (`parameters`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multiroot.errors import BadRequestError
from multiroot.kexec.x86.acpi import UART_PORTS_AT
from multiroot.kexec.x86.parameters import Parameter, join, key, split


@dataclass(frozen=True)
class CommandLine:
    """What goes into it: the old root's `tsc_khz`, the new kernel's CONFIG_HZ (0: unknown), its port,
    CPU features that it is to do without."""

    root: int
    shared: int
    tsc_khz: int
    x2apic: bool
    hz: int = 0
    uart: int = 0
    cleared: tuple[str, ...] = ()
    user: str = ""

    @property
    def port(self) -> str:
        """Its serial port, as the kernel calls it."""
        return f"ttyS{self.uart}"


@dataclass(frozen=True)
class Own:
    """A parameter that we set. `value` is None where a root does not get it, "" for one without a value.

    `why` says what another value would do. `spellings` are other names for the same. A value that matches
    `also` does no harm beside ours.
    """

    name: str
    value: Callable[[CommandLine], str | None]
    why: str
    spellings: tuple[str, ...] = ()
    also: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key(name) for name in (self.name, *self.spellings))


OWN = (
    Own("pci", lambda _: "off", "the devices belong to the old root"),
    Own("tsc", lambda _: "reliable", "there is no clock to check it by", also="noirqtime|nowatchdog"),
    Own("tsc_early_khz", lambda line: str(line.tsc_khz), "all roots count the same time"),
    Own("no_ipi_broadcast", lambda _: "1", "its interrupts would reach CPUs of other roots"),
    Own("apic_extnmi", lambda _: "none", "external NMIs belong to the old root"),
    Own(
        "8250.nr_uarts",
        lambda line: str(line.uart + 1),
        "the other serial ports belong to the old root",
        spellings=("8250_core.nr_uarts",),
    ),
    Own(
        "console",
        lambda line: f"{line.port},115200",
        "the other serial ports belong to the old root",
        also=r"tty\d{1,2}",
    ),
    Own(
        "lpj",
        lambda line: str(line.tsc_khz * 1000 // line.hz) if line.hz else None,
        "its delays would be wrong",
    ),
    Own("dis_ucode_ldr", lambda _: "", "another half of its cores may run another root"),
    Own(
        "clearcpuid",
        lambda line: ",".join(line.cleared) or None,
        "its CPUs would write to its memory, whose ever it is later",
    ),
    Own("nox2apic", lambda line: "" if line.x2apic else None, "its interrupts would reach other roots"),
    Own("multiroot.shared", lambda line: f"{line.shared:#x}", "it is where this root shares memory with it"),
    Own("multiroot.root", lambda line: str(line.root), "it is the root's number in the ledger"),
)


@dataclass(frozen=True)
class Refused:
    """Parameters that break a root which shares its machine, unless their value matches `except_for`.

    {port} and {io} in `except_for` are the root's serial port and its address. With `prefix` the kernel takes
    longer names for these too.
    """

    names: tuple[str, ...]
    why: str
    except_for: str | None = None
    prefix: bool = False


_NO_OTHER_TIMER = "the new root has no other interrupt controller or timer"
_ITS_MEMORY = "its memory map is made for it; choose its memory with --carve"
_ITS_CPUS = "its CPUs are chosen with --cpus, and more come when the old root ends"
_THROUGH_ACPI = "the new root finds its CPUs and its UART through ACPI tables that are made for it"
_COMMON_CLOCK = "the TSC is the only clock that all roots share"
_OLD_ROOTS_PORT = "the other serial ports belong to the old root"
_OLD_ROOTS_IOMMU = "the IOMMU belongs to the old root until it ends"
_NO_RESET = "it would reset the machine and the old root with it"
_CRASH_KERNEL = "a crash kernel would take the whole machine for its own"

REFUSED = (
    Refused(("noapic",), "it makes the new root unmask the legacy interrupt input of its CPUs"),
    Refused(("nolapic", "disableapic", "nolapic_timer", "noapictimer"), _NO_OTHER_TIMER),
    Refused(("acpi",), _THROUGH_ACPI, except_for="force|strict|copy_dsdt|nocmcff"),
    Refused(("acpi_rsdp", "acpi_apic_instance"), _THROUGH_ACPI),
    Refused(("pnpacpi",), _THROUGH_ACPI, except_for="on"),
    Refused(("mem", "memmap"), _ITS_MEMORY),
    Refused(("nr_cpus", "maxcpus", "possible_cpus", "nosmp", "disable_cpu_apicid"), _ITS_CPUS),
    Refused(("notsc", "apicpmtimer"), _COMMON_CLOCK, prefix=True),
    Refused(("clocksource", "clock"), _COMMON_CLOCK, except_for="tsc"),
    Refused(("hpet",), "the HPET belongs to the old root", except_for="disable"),
    Refused(("pmtmr",), "the PM timer belongs to the old root"),
    Refused(("intel_iommu", "amd_iommu", "iommu", "intremap"), _OLD_ROOTS_IOMMU, except_for="off"),
    Refused(("i8042.nopnp",), "the keyboard controller belongs to the old root"),
    Refused(("earlyprintk",), _OLD_ROOTS_PORT, except_for=r"(serial,)?{port}(,\d+)?(,keep)?"),
    Refused(("earlycon",), _OLD_ROOTS_PORT, except_for=r"uart(8250)?,io,{io}(,\d+(n8)?)?"),
    Refused(("kgdboc", "kgdboc.kgdboc", "kgdboc_earlycon"), _OLD_ROOTS_PORT, except_for=r"{port}(,\d+)?"),
    Refused(("panic", "sysctl.kernel.panic", "sysctl.kernel/panic"), _NO_RESET, except_for="0"),
    Refused(("reboot",), _NO_RESET),
    Refused(("crashkernel", "elfcorehdr", "reset_devices"), _CRASH_KERNEL),
    Refused(("bootconfig",), "it lets the initrd add parameters that nobody has checked"),
    Refused(("multiroot.ledger",), "all roots of a machine have one ledger"),
)

# Some are read by others too, who know neither quotes nor "--": the kernel's decompressor, modprobe.
_READ_ANYWHERE = re.compile(
    r"(?<![A-Za-z])(?:earlyprintk|console|acpi_rsdp|multiroot[.](?:shared|root|ledger))(?:=\S*|(?=\s|$))"
)

# What made sense for the running root only, beside all of the above.
_FOR_ONE_ROOT = re.compile(
    r"BOOT_IMAGE|initrd|movablecore|kernelcore|isolcpus|nohz_full|rcu_nocbs|irqaffinity|kthread_cpus"
    r"|multiroot(_\w+)?[.].*"
)


def required(line: CommandLine) -> tuple[str, ...]:
    """The parameters that every new root gets; docs/boot-protocol.md says why each."""
    values = ((own.name, own.value(line)) for own in OWN)
    return tuple(f"{name}={value}" if value else name for name, value in values if value is not None)


def assemble(line: CommandLine, limit: int) -> str:
    """The whole command line; `limit` is the kernel's, in bytes without the terminating NUL.

    BadRequestError when it is too long or not printable ASCII, when a quote in the user's part is not closed,
    and when that part contradicts what a root needs.
    """
    if not line.user.isascii() or not line.user.replace("\t", " ").isprintable():
        raise BadRequestError("command line: only printable ASCII characters are allowed")
    parameters, _ = split(line.user)
    for parameter in (*parameters, *_read_anywhere(line.user)):
        _check(parameter, line)
    ours = required(line)
    # Words behind "--" go to init, so ours must come before any of the user's.
    text = " ".join((*ours, line.user.strip())).strip()
    if len(text) > limit:
        raise BadRequestError(
            f"command line: {len(text)} bytes, the kernel takes {limit}",
            f"the part of your own may have {limit - len(' '.join(ours)) - 1} bytes",
        )
    return text


def reusable(running: str, own: str) -> str:
    """The part of a running root's /proc/cmdline that fits another root too, and `own` behind it.

    Parameters come before what either says to init behind "--". Raises BadRequestError for an open quote.
    """
    theirs, theirs_for_init = split(running)
    mine, mine_for_init = split(own)
    kept = tuple(
        each for each in theirs if not _is_restricted(each.key) and not _FOR_ONE_ROOT.fullmatch(each.key)
    )
    return join((*kept, *mine), (*theirs_for_init, *mine_for_init))


def _read_anywhere(text: str) -> Iterator[Parameter]:
    for found in _READ_ANYWHERE.findall(text.replace('"', "")):
        name, equals, value = found.partition("=")
        yield Parameter(name, value if equals else None, found)


def _check(parameter: Parameter, line: CommandLine) -> None:
    """Raises BadRequestError when the kernel would take it for one of ours, or of those that are refused."""
    for own in OWN:
        wanted = own.value(line)
        if parameter.key in own.keys and wanted is not None and not _agrees(own, parameter, wanted):
            ours = f"{own.name}={wanted}" if wanted else own.name
            raise BadRequestError(
                f"command line: {parameter.text} can not be used, {own.why}",
                f"leave it out, the new root gets {ours}",
            )
    for refused in REFUSED:
        if _names(refused, parameter.key) and not _excepted(refused, parameter, line):
            raise BadRequestError(
                f"command line: {parameter.text} can not be used, {refused.why}", "leave it out"
            )


def _agrees(own: Own, parameter: Parameter, wanted: str) -> bool:
    value = parameter.value
    return not wanted or value == wanted or bool(value and own.also and re.fullmatch(own.also, value))


def _names(refused: Refused, name: str) -> bool:
    keys = tuple(key(each) for each in refused.names)
    return name.startswith(keys) if refused.prefix else name in keys


def _excepted(refused: Refused, parameter: Parameter, line: CommandLine) -> bool:
    if refused.except_for is None:
        return False
    pattern = refused.except_for.replace("{port}", line.port)
    pattern = pattern.replace("{io}", f"{UART_PORTS_AT[line.uart]:#x}")
    return bool(re.fullmatch(pattern, parameter.value or ""))


def _is_restricted(name: str) -> bool:
    return any(name in own.keys for own in OWN) or any(_names(refused, name) for refused in REFUSED)
