# SPDX-License-Identifier: GPL-2.0-or-later
"""What the module's refusals mean: one clear sentence for each errno of each ioctl."""

from __future__ import annotations

import errno
import os

from multiroot.errors import BadRequestError, ConflictError, MultirootError, PeerLostError, WaitTimeoutError


class NoDeviceError(MultirootError):
    """/dev/multiroot can't be opened."""


class ClaimError(ConflictError):
    """The coordinator's claim is held by somebody else, or was not taken."""


Meaning = tuple[type[MultirootError], str, str]

_UNCLAIMED: Meaning = (
    ClaimError,
    "this needs the coordinator's claim",
    "take it with Device.claim() on the same open device",
)
_NOT_PERMITTED: Meaning = (
    NoDeviceError,
    "this needs CAP_SYS_BOOT and a kernel that is not locked down, as kexec does",
    "cat /sys/kernel/security/lockdown",
)
_NO_PEER: Meaning = (PeerLostError, "there is no such root beside this one", "")
_NO_CPU: Meaning = (BadRequestError, "this machine has no such CPU", "see /sys/devices/system/cpu/present")

_OPEN: dict[int, Meaning] = {
    errno.ENOENT: (NoDeviceError, "multiroot.ko is not loaded", "modprobe multiroot"),
    errno.EACCES: (NoDeviceError, "only root may use /dev/multiroot", "run this with sudo"),
    errno.EPERM: _NOT_PERMITTED,
}
_CLAIM: dict[int, Meaning] = {
    errno.EBUSY: (ClaimError, "another coordinator is at work", "wait for it to end"),
}
_CARVE: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (
        BadRequestError,
        "malformed, smaller than 64 MiB (64 KiB for the low window), or not all of it is RAM",
        "compare with /sys/firmware/memmap",
    ),
    errno.EBUSY: (
        ConflictError,
        "this kernel uses part of that memory, or a carve is registered already",
        "compare with /proc/iomem and `multiroot root list`",
    ),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map it", ""),
}
_UNCARVE: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.ENOENT: (ConflictError, "no carve is registered", ""),
    errno.EBUSY: (
        ConflictError,
        "CPUs are still granted to the root in it, or its control page is still mapped",
        "reclaim them and close the page first",
    ),
}
_WRITE: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "not inside the carve or its low window, or in the shared area", ""),
    errno.EBUSY: (ConflictError, "the memory belongs to the started root", "stop it first"),
    errno.EFAULT: (BadRequestError, "the data can't be read", ""),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map the carve", ""),
}
_READ: dict[int, Meaning] = {
    errno.EINVAL: (BadRequestError, "not inside the carve or its low window, or in the shared area", ""),
    errno.EFAULT: (BadRequestError, "the buffer can't be written", ""),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map the carve", ""),
}
_FIND: dict[int, Meaning] = {
    errno.EINVAL: (BadRequestError, "not aligned to 8, or not inside the carve or its low window", ""),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map the carve", ""),
}
_NOT_PARKED: Meaning = (
    WaitTimeoutError,
    "it did not park and may still run, so it stays with the root that has it",
    "dmesg | grep multiroot",
)

_CPU_GET: dict[int, Meaning] = {errno.EINVAL: _NO_CPU}
_CPU_GRANT: dict[int, Meaning] = {
    errno.EINVAL: _NO_CPU,
    errno.EPERM: (
        ConflictError,
        "the machine's boot CPU can't change roots, or this needs the coordinator's claim",
        "choose another CPU; claim the device first",
    ),
    errno.EBUSY: (ConflictError, "it is online here, or granted already", "take it offline first"),
    errno.ENOENT: (ConflictError, "no carve is registered that it could be granted to", "carve first"),
    errno.ETIMEDOUT: _NOT_PARKED,
}
_CPU_START: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (
        BadRequestError,
        "no such CPU, or an address outside of the carve and its low window",
        "the trampoline page must be in the low window, cr3 below 4 GiB",
    ),
    errno.EBUSY: (ConflictError, "it is not granted, or the root was started already", "grant it first"),
    errno.ENOENT: (ConflictError, "no carve is registered", "carve first"),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map the trampoline", ""),
    errno.ETIMEDOUT: (WaitTimeoutError, "it did not reach the entry point in time", "reclaim it"),
}
_CPU_RECLAIM: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: _NO_CPU,
    errno.EBUSY: (ConflictError, "it was not granted", ""),
    errno.ETIMEDOUT: _NOT_PARKED,
}
_NOT_ALONE: Meaning = (
    ConflictError,
    "another root is alive, or the parent was not inherited from",
    "see `multiroot root list`",
)
_INHERIT: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.ENOENT: (ConflictError, "this is the machine's first root", ""),
    errno.EBUSY: _NOT_ALONE,
    errno.ENODEV: (
        ConflictError,
        "there are PCI devices that this root can't reach, so their DMA can't be stopped",
        "the machine's firmware must say where their configuration space is (ACPI's table MCFG)",
    ),
    errno.ETIMEDOUT: (ConflictError, "an IOMMU of the old root does not stop", "dmesg"),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map I/O APICs or PCI", ""),
}
_CPU_ADOPT: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "the ledger knows no such CPU", ""),
    errno.EBUSY: _NOT_ALONE,
    errno.EAGAIN: (ConflictError, "it is not parked", "its root did not end in order; see its messages"),
    errno.ENODEV: (ConflictError, "this root was started without a place for it", ""),
}
_PCI_ADOPT: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "there is no such function", ""),
    errno.EBUSY: _NOT_ALONE,
    errno.ENXIO: (
        ConflictError,
        "only function 0 of its device makes the others be found",
        "adopt function 0 before it",
    ),
    errno.ENODEV: (
        ConflictError,
        "this root has PCI of its own, or the machine has no ECAM of all host bridges",
        "",
    ),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left to map it", ""),
}
_MEMORY: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "not page aligned, too large, or not all RAM", ""),
    errno.ERANGE: (
        BadRequestError,
        "memory is added in whole memory blocks",
        "cat /sys/devices/system/memory/block_size_bytes",
    ),
    errno.EAGAIN: (ConflictError, "a CPU of another root is not at rest", "multiroot root list"),
    errno.EBUSY: (
        ConflictError,
        "another root is alive, or this kernel uses it",
        "see `multiroot root list`",
    ),
    errno.EEXIST: (ConflictError, "this kernel has it already", ""),
    errno.ENOMEM: (ConflictError, "this kernel has no memory left for it", ""),
}
_DOORBELL: dict[int, Meaning] = {
    errno.EINVAL: (BadRequestError, "not a neighbour, or not an eventfd", ""),
    errno.EBADF: (BadRequestError, "the eventfd is closed", ""),
    errno.ENOENT: _NO_PEER,
}
_RING: dict[int, Meaning] = {
    errno.EINVAL: (BadRequestError, "not a neighbour, or not events of user space", ""),
    errno.ENOENT: _NO_PEER,
}
_MAP: dict[int, Meaning] = {errno.ENOENT: _NO_PEER}

_OPEN_PASSTHROUGH: dict[int, Meaning] = {
    errno.ENOENT: (NoDeviceError, "its module is not loaded", "modprobe multiroot_iommu multiroot_pci"),
    errno.EACCES: (NoDeviceError, "only root may use it", "run this with sudo"),
    errno.EPERM: _NOT_PERMITTED,
}
_CLAIM_PASSTHROUGH: dict[int, Meaning] = {
    errno.EBUSY: (ClaimError, "another program has the claim", "only this root's agent may: is one running?"),
}
_IOMMU_START: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "the tables must lie in persistent memory, aligned to 2 MiB", ""),
    errno.EBUSY: (
        ConflictError,
        "somebody drives it already",
        "the old root needs intel_iommu=off intremap=off",
    ),
    errno.ENODEV: (ConflictError, "no VT-d unit there that has what this needs", ""),
}
_IOMMU_JOIN: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "the tables must lie in persistent memory, aligned to 2 MiB", ""),
    errno.EBUSY: (
        ConflictError,
        "two other roots take part already, or the kernel has another IOMMU",
        "",
    ),
    errno.ENODEV: (ConflictError, "they are of another layout, or the unit does not use them", ""),
}
_IOMMU_DEVICE: dict[int, Meaning] = {
    errno.ENOENT: (ConflictError, "it has no tables of its own", ""),
    errno.ENODEV: (ConflictError, "this root takes no part in the IOMMU", ""),
}
_IOMMU_INHERIT: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.ENODEV: (ConflictError, "this root takes no part in the IOMMU", ""),
}
_IOMMU_SWITCH: dict[int, Meaning] = {
    **_IOMMU_DEVICE,
    errno.EPERM: _UNCLAIMED,
    errno.ENODATA: (ConflictError, "it is attached to no VM here, or has no live translation", ""),
    errno.ESTALE: (ConflictError, "another root owns it", ""),
    errno.EXDEV: (ConflictError, "translations into the VM's memory differ", "is all of it in the arena?"),
}
_PCI_ADD: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.EINVAL: (BadRequestError, "not a function that could be handed over", ""),
    errno.EEXIST: (ConflictError, "this root has it already", ""),
    errno.EBUSY: (ConflictError, "something else is where its registers are", "compare with /proc/iomem"),
    errno.ENODEV: (ConflictError, "nothing answers there", ""),
}
_PCI_REMOVE: dict[int, Meaning] = {
    errno.EPERM: _UNCLAIMED,
    errno.ENOENT: (ConflictError, "there is no such segment", ""),
    errno.EBUSY: (ConflictError, "a driver has its function", "unbind it first"),
}

MEANINGS: dict[str, dict[int, Meaning]] = {
    "OPEN": _OPEN,
    "INFO": {},
    "CLAIM": _CLAIM,
    "CARVE": _CARVE,
    "UNCARVE": _UNCARVE,
    "WRITE": _WRITE,
    "READ": _READ,
    "FIND": _FIND,
    "CPU_GET": _CPU_GET,
    "CPU_GRANT": _CPU_GRANT,
    "CPU_START": _CPU_START,
    "CPU_RECLAIM": _CPU_RECLAIM,
    "INHERIT": _INHERIT,
    "CPU_ADOPT": _CPU_ADOPT,
    "PCI_ADOPT": _PCI_ADOPT,
    "MEMORY": _MEMORY,
    "DOORBELL": _DOORBELL,
    "RING": _RING,
    "MAP": _MAP,
    "OPEN_PASSTHROUGH": _OPEN_PASSTHROUGH,
    "IOMMU_IOC_INFO": {},
    "IOMMU_IOC_CLAIM": _CLAIM_PASSTHROUGH,
    "PCI_IOC_CLAIM": _CLAIM_PASSTHROUGH,
    "IOMMU_IOC_START": _IOMMU_START,
    "IOMMU_IOC_JOIN": _IOMMU_JOIN,
    "IOMMU_IOC_DEVICE": _IOMMU_DEVICE,
    "IOMMU_IOC_SWITCH": _IOMMU_SWITCH,
    "IOMMU_IOC_INHERIT": _IOMMU_INHERIT,
    "PCI_IOC_ADD": _PCI_ADD,
    "PCI_IOC_REMOVE": _PCI_REMOVE,
}


def refusal(operation: str, what: str, number: int) -> MultirootError:
    """The error for errno `number` of an `operation` (a key of MEANINGS); `what` says what was tried."""
    kind, why, hint = MEANINGS[operation].get(number, (MultirootError, os.strerror(number), ""))
    return kind(f"{what}: {why}", hint)
