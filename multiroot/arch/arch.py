# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rest of the code asks about the processor architecture, as one record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from multiroot.ranges import Range


@dataclass(frozen=True)
class Cpus:
    """What a kernel says about its CPUs in /proc/cpuinfo. The functions take the text of that file, but for
    `table_ids`.

    `hardware_ids`: the interrupt controller's id of each online CPU, by the CPU's logical number.
    `clock_khz`: the clock rate of now in kHz, 0 when it is not there.
    `model`: the line that names the model of the first CPU, "" when there is none.
    `features`: what the first CPU can do, in the kernel's words.

    `table_ids`: the ids of all CPUs that the firmware's file `table` says are there, online or not; the
    function takes its bytes.

    `what` describes a CPU that will do. `id_name` is what people call a hardware id. `widest_narrow_id` is
    the largest one that fits the interrupt controller's narrow mode. `controllers` are the names of its two
    modes, narrow and wide. Of the features, every root needs those that are `wanted`. Those of `clock` make a
    clock common to all roots. `clock_sources` are kernels' clock sources that are of this clock; `derived` of
    them are so in a guest of a hypervisor, as long as its host's is. A CPU that runs VMs has one of
    `virtualisation`. With one of `writing` CPUs write to memory of the kernel that was first, also when it
    has ended; the kernel parameter `cleared_by` makes a kernel do without. Guests in the oldest root that is
    supported can't have those that are `newer`, by QEMU's names. `nested_paging` are switches of KVM's
    modules, as files in /sys/module, without which the CPU does not translate guests' memory.
    """

    hardware_ids: Callable[[str], dict[int, int]]
    clock_khz: Callable[[str], int]
    model: Callable[[str], str]
    features: Callable[[str], frozenset[str]]
    table: str
    table_ids: Callable[[bytes], frozenset[int]]
    what: str
    id_name: str
    widest_narrow_id: int
    controllers: tuple[str, str]
    wanted: frozenset[str]
    clock: frozenset[str]
    clock_sources: frozenset[str]
    derived: frozenset[str]
    virtualisation: frozenset[str]
    writing: frozenset[str]
    cleared_by: str
    kvm_modules: tuple[str, ...]
    nested_paging: tuple[str, ...]
    newer: frozenset[str]

    def cleared(self, command_line: str) -> tuple[str, ...]:
        """Features of `writing` that the kernel with this command line does without."""
        lists = re.findall(rf"(?<!\S){self.cleared_by}=(\S*)", command_line)
        return tuple(sorted(self.writing & set(lists[-1].split(",")))) if lists else ()

    def are_wide(self, cpuinfo: str) -> bool:
        """Whether CPUs have ids that only the wide mode of the interrupt controller can address."""
        return max(self.hardware_ids(cpuinfo).values(), default=0) > self.widest_narrow_id


@dataclass(frozen=True)
class KernelFile:
    """The file a kernel comes in. `name` is the format's, and what make calls it; `release` reads the kernel
    release. `built` is where it is in the folder in which it was built, `defaults` the usual configuration.

    `release` takes the first `head` bytes of the file. It raises BadRequestError when they are no kernel's.
    `payload` gives the kernel in the whole file, compressed as it is; empty for what is none.
    """

    name: str
    head: int
    release: Callable[[bytes], str]
    payload: Callable[[bytes], bytes]
    built: str
    defaults: str


@dataclass(frozen=True)
class Memory:
    """Physical memory as machines of this architecture have it; sizes and addresses in bytes.

    `page_sizes` are those that page tables know, smallest first. `address_limit` is where the addresses end
    that a new kernel can be given. `ledger` is where the kernel module keeps the ledger. `low_windows` are
    the places to try for the memory that a new root needs near address 0.

    Where the CPU has one of `owner_features`, or one of `owner_files` (by what it is about) says that it is
    on, pages have owners that no other kernel knows of. A kernel that encrypts its memory says
    `encrypted_says` when it starts, or shows one of the features `encrypted_features`; the kernel parameter
    `encrypted_by` turns it on and off. `config_space_table` is the firmware's file that says where PCI
    configuration space is, `node_tables` are those that say which memory and which CPUs are near each other.
    """

    page_sizes: tuple[int, ...]
    address_limit: int
    ledger: Range
    low_windows: tuple[Range, ...]
    owner_features: frozenset[str]
    owner_files: Mapping[str, str]
    encrypted_features: frozenset[str]
    encrypted_says: str
    encrypted_by: str
    config_space_table: str
    node_tables: tuple[str, ...]


@dataclass(frozen=True)
class LabMachine:
    """The computer that QEMU makes for the lab.

    `program` is QEMU's program, `machine_type` and `cpu` are arguments for it, `iommu` are its device models
    of IOMMUs by vendor. Once RAM is `split_from` bytes or more, `low_ram` bytes of it lie at address 0, the
    rest at `high_base`. `libraries` and `loader` are where a Debian tree keeps its libraries and the dynamic
    loader among them, `debian` is Debian's name of the architecture.
    """

    program: str
    machine_type: str
    cpu: str
    iommu: Mapping[str, str]
    split_from: int
    low_ram: int
    high_base: int
    libraries: str
    loader: str
    debian: str


@dataclass(frozen=True)
class GuestDisk:
    """What a disk for guests has for this architecture's firmware.

    `grub_bios` and `grub_efi` are GRUB's names of what it is built for: a BIOS, a UEFI. UEFI starts the file
    `efi_file` of its own partition from a disk that it knows nothing of. `root_type` is the type of the
    partition with the root file system (Discoverable Partitions Specification).
    """

    grub_bios: str
    grub_efi: str
    efi_file: str
    root_type: str


@dataclass(frozen=True)
class Exits:
    """What KVM's tracepoints tell of a virtual CPU's exits.

    `events` are the tracepoints to switch on, as folders of tracefs; not every kernel has all of them.
    `about` takes an event's name and what it says: what the exit was for in which it came, "" if it does not
    tell.
    """

    events: tuple[str, ...]
    about: Callable[[str, str], str]


@dataclass(frozen=True)
class Arch:
    """One architecture.

    `name` is that of its folders in the source, `machine` is what `uname -m` says, `title` what people say.
    `serial` is how serial consoles are called, less their number. `trace_clock` is the clock of the kernel's
    tracer that all roots share.
    """

    name: str
    machine: str
    title: str
    serial: str
    trace_clock: str
    cpus: Cpus
    kernel: KernelFile
    memory: Memory
    lab: LabMachine
    disk: GuestDisk
    exits: Exits
