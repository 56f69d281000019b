# SPDX-License-Identifier: GPL-2.0-or-later
"""The new root's kernel command line: what it needs to live beside another kernel, then the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multiroot.errors import BadRequestError

MODULE_PREFIX = "multiroot."

# What breaks a root that shares its machine, and why.
_HARMFUL = {
    "noapic": "it makes the new root unmask the legacy interrupt input of its CPUs",
    "nolapic": "the new root has no other interrupt controller or timer",
    "disableapic": "the new root has no other interrupt controller or timer",
    "acpi=off": "the new root finds its CPUs and its UART through ACPI",
    "acpi=noirq": "the new root finds its CPUs through ACPI",
}

# What made sense for the running root only, dropped when its command line is used again.
_FOR_ONE_ROOT = re.compile(
    r"(BOOT_IMAGE|initrd|mem|memmap|movablecore|kernelcore|crashkernel|maxcpus|nr_cpus|isolcpus|nohz_full"
    r"|console|earlyprintk|earlycon|pci|tsc|tsc_early_khz|no_ipi_broadcast|apic_extnmi|8250\.nr_uarts|lpj"
    r"|nox2apic|multiroot\.[^=]*)(=.*)?"
)


@dataclass(frozen=True)
class CommandLine:
    """What goes into it: the old root's `tsc_khz`, the new kernel's CONFIG_HZ (0: unknown), its port."""

    root: int
    shared: int
    tsc_khz: int
    x2apic: bool
    hz: int = 0
    uart: int = 0
    user: str = ""


def required(spec: CommandLine) -> tuple[str, ...]:
    """The parameters that every new root gets; docs/boot-protocol.md says why each."""
    parameters = [
        "pci=off",
        "tsc=reliable",
        f"tsc_early_khz={spec.tsc_khz}",
        "no_ipi_broadcast=1",
        "apic_extnmi=none",
        f"8250.nr_uarts={spec.uart + 1}",
        f"console=ttyS{spec.uart},115200",
    ]
    if spec.hz:
        parameters.append(f"lpj={spec.tsc_khz * 1000 // spec.hz}")
    if spec.x2apic:
        parameters.append("nox2apic")
    return (*parameters, f"{MODULE_PREFIX}shared={spec.shared:#x}", f"{MODULE_PREFIX}root={spec.root}")


def assemble(spec: CommandLine, limit: int) -> str:
    """The whole command line; `limit` is the kernel's, in bytes without the terminating NUL.

    The user's part comes last, so that it wins where the kernel takes the last value given.
    BadRequestError when it is too long, not printable ASCII, or contains what is known to break
    either root.
    """
    if not spec.user.isascii() or not spec.user.replace("\t", " ").isprintable():
        raise BadRequestError("command line: only printable ASCII characters are allowed")
    words = spec.user.split()
    for word in words:
        reason = _HARMFUL.get(word)
        if reason:
            raise BadRequestError(f"command line: {word} can not be used, {reason}")
        if word.startswith(MODULE_PREFIX) and word.partition("=")[0] in (
            "multiroot.shared",
            "multiroot.root",
        ):
            raise BadRequestError(f"command line: {word.partition('=')[0]} is set by us", "leave it out")
    ours = required(spec)
    # Words behind "--" go to init, so ours must come before any of the user's.
    text = " ".join((*ours, spec.user.strip())).strip()
    if len(text) > limit:
        raise BadRequestError(
            f"command line: {len(text)} bytes, the kernel takes {limit}",
            f"the part of your own may have {limit - len(' '.join(ours)) - 1} bytes",
        )
    return text


def reusable(running: str) -> str:
    """The part of a running root's /proc/cmdline that fits another root too (`--reuse-cmdline`)."""
    return " ".join(word for word in running.split() if not _FOR_ONE_ROOT.fullmatch(word))
