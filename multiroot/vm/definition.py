# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM is, in words that mean the same in every root."""

from __future__ import annotations

import ipaddress
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiroot.arena.atomics import crc32c
from multiroot.arena.layout import check_size
from multiroot.errors import BadRequestError
from multiroot.net.addresses import not_a_guests
from multiroot.rpc.border import PATH_MOST, VM_NAME
from multiroot.units import MIB, format_size, parse_count, parse_size
from multiroot.vm import cpu_model, disk
from multiroot.vm.disk import Disk, check_disks
from multiroot.vm.fields import Option, check_given_once, described, listed, to_data
from multiroot.vm.seed import check_user_data, read_user_data

MIN_RAM = 32 * MIB
MAX_CPUS = 255  # what QEMU's q35 takes without an emulated IOMMU
MACHINES = ("q35", "microvm")
MOST_CARDS = 8
MOST_QUEUES = 8  # of a card, in each direction
WATCHDOG_ACTIONS = ("reset", "poweroff", "inject-nmi", "none")  # none: it is only told
DIRECT, SEABIOS, OVMF = FIRMWARES = ("direct", "seabios", "ovmf")

# A name becomes a folder, a table entry (64 bytes) and part of a process's command line.
_NAME = VM_NAME
_MACHINE_OPTION = re.compile(r"[a-z0-9_-]+=[A-Za-z0-9._-]+")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NO_MAC = "00:00:00:00:00:00"
_PCI_ADDRESS = re.compile(r"(?:0000:)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])")
# What would make two roots run different machines, or take the memory out of the arena.
_FIXED_OPTIONS = {
    "accel", "type", "kernel", "initrd", "shim", "append", "dtb", "dumpdtb", "firmware", "igvm-cfg",
    "pflash0", "pflash1", "memory-backend", "memory-encryption",
    "confidential-guest-support", "suppress-vmdesc",
}  # fmt: skip


def _one_or_none(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


@dataclass(frozen=True)
class Card:
    """A network card. `mac` empty: made from the VM's name. `address` is the guest's own, with prefix length,
    or empty: it asks for one, or has none. `queues` of each direction, for as many CPUs.
    """

    mac: str = described("", Option("--mac", "MAC address of its card (default: made from NAME)."))
    address: str = described("", Option("--address", "The guest's own address on the bridge.", "ADDR/LEN"))
    queues: int = described(1, Option("--queues", "Queues of its card in each direction, for several CPUs."))


def _more_cards(texts: Sequence[str]) -> tuple[Card, ...]:
    """Cards as --card has them; raises BadRequestError for other words."""
    return tuple(map(_more_card, texts))


def _more_card(text: str) -> Card:
    card = Card()
    words = [word for word in text.split(",") if word]
    for word in words:
        name, given, value = word.partition("=")
        if not given or name not in ("mac", "address", "queues"):
            raise BadRequestError(f"not a word about a card: {word!r}", "there are: mac=, address=, queues=")
        changes: dict[str, Any] = {name: parse_count(value) if name == "queues" else value}
        card = replace(card, **changes)
    check_given_once(words, text)
    return card


@dataclass(frozen=True)
class VmDefinition:
    """All that a root needs to run a VM exactly as another root does.

    `ram_bytes` is a multiple of 2 MiB; `cpu` is a model with features behind commas, written out when the VM
    first starts, but for "host" (`cpu_model`); `machine` is "q35" or "microvm" with the VMM's options behind
    commas; `firmware` says what starts the guest, `boot_order` from which of its disks (diskN, as the guest
    sees it), all in their order if none is named; `guest` names a folder of kernel and initrd in the system
    image, in whose place a user may give `kernel` and `initrd`, files that a machine knows by their checksums
    (`kept_files`); `append` is added to the guest's command line; `functions` are the PCI functions that the
    VM owns, bus:device.function; `watchdog` is what is done when the guest's watchdog fires, empty if it has
    none; `user_data` is for cloud-init, on a disk that each root makes (`seed`).

    Messages, JSON, files, the options of `vm run` and what `vm show` prints are derived from these fields.
    """

    name: str
    ram_bytes: int = described(
        256 * MIB,
        Option("--memory", "RAM, a multiple of 2 MiB.", default="256M", parse=parse_size, write=format_size),
    )
    cpus: int = described(1, Option("--cpus", "Virtual CPUs."))
    cpu: str = described(
        cpu_model.FROZEN,
        Option(
            "--cpu",
            "CPU model, as EPYC,svm=off. frozen: what this root and Linux 6.1 know; "
            "host: all that it has, wherever the VM starts.",
        ),
    )
    machine: str = described("q35", Option("--machine", "q35 or microvm, with QEMU's options."))
    firmware: str = described(
        DIRECT,
        Option(
            "--firmware",
            "seabios, ovmf (UEFI): the first disk, or without one GUEST; direct: GUEST.",
        ),
    )
    guest: str = described("ticker", Option("--guest", "Guest image of the system image."))
    kernel: str = described("", Option("--kernel", "A kernel of yours in place of GUEST.", "FILE"))
    initrd: str = described("", Option("--initrd", "The initrd for that kernel.", "FILE"))
    append: str = described("", Option("--append", "More parameters for the guest's kernel."))
    cards: tuple[Card, ...] = listed(
        Card,
        (Card(),),
        more=Option(
            "--card",
            "One more network card; may be given several times.",
            "[mac=MAC][,address=ADDR/LEN][,queues=N]",
            default=(),
            parse=_more_cards,
            multiple=True,
        ),
    )
    disks: tuple[Disk, ...] = listed(Disk, (), disk.OPTION)
    boot_order: tuple[str, ...] = described(
        (),
        Option(
            "--boot-order",
            "The disks that a firmware tries, the first one first, and no others.",
            "disk1,disk0",
            "",
            parse=_names,
        ),
    )
    functions: tuple[str, ...] = described(
        (), Option("--device", "A PCI device that the VM owns.", "BB:DD.F", "", parse=_one_or_none)
    )
    watchdog: str = described(
        "",
        Option(
            "--watchdog",
            f"A watchdog (i6300esb), and what is done when it fires: {', '.join(WATCHDOG_ACTIONS)}.",
            "ACTION",
        ),
    )
    user_data: str = described(
        "",
        Option("--user-data", "What cloud-init in the guest is told, a file.", "FILE", parse=read_user_data),
    )

    @property
    def card(self) -> Card:
        """Its first card; one that has nothing if it has none."""
        return self.cards[0] if self.cards else Card()

    @property
    def function(self) -> str:
        """The PCI function that it owns, empty if none; `checked` sees to it that there is at most one."""
        return self.functions[0] if self.functions else ""

    @property
    def boots_a_disk(self) -> bool:
        """Whether what is on its first disk starts, else a kernel that is given."""
        return self.firmware != DIRECT and bool(self.disks)

    def called(self, name: str) -> VmDefinition:
        """The same VM under another name. A MAC address that was made from the name is made from the new one:
        two VMs of one file shall not have the same.
        """
        cards = (
            replace(card, mac="") if card.mac.lower() == _mac("", self.name, number) else card
            for number, card in enumerate(self.cards)
        )
        return self if name == self.name else replace(self, name=name, cards=tuple(cards))

    def checked(self) -> VmDefinition:
        """This definition with defaults filled in; raises BadRequestError naming the first thing wrong."""
        check_name(self.name)
        check_ram(self.ram_bytes)
        if not 1 <= self.cpus <= MAX_CPUS:
            raise BadRequestError(f"a VM cannot have {self.cpus} CPUs", f"1 to {MAX_CPUS}")
        cpu_model.parse(self.cpu)
        check_machine(self.machine)
        if not _NAME.fullmatch(self.guest):
            raise BadRequestError(f"not a guest's name: {self.guest!r}", "write it like ticker")
        for what, text in (("command line", self.append), ("kernel", self.kernel), ("initrd", self.initrd)):
            if not text.isprintable():
                raise BadRequestError(f"the guest's {what} holds characters that are not printable")
        _check_start(self)
        if len(self.functions) > 1:
            raise BadRequestError(
                f"a VM cannot own {len(self.functions)} PCI functions", "it can own one, so far"
            )
        return replace(
            self,
            cards=_checked_cards(self),
            disks=check_disks(self.disks),
            functions=tuple(_function(function, self.machine) for function in self.functions),
        )

    def checksum(self) -> int:
        """CRC-32C over every field, as kept in the arena."""
        return crc32c(json.dumps(to_data(self), sort_keys=True).encode())


def check_name(name: str) -> None:
    """Raises BadRequestError unless a VM may be called `name`."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            f"not a name for a VM: {name!r}", "up to 32 lower-case letters, digits and inner dashes"
        )


def check_ram(size: int) -> None:
    """Raises BadRequestError unless a VM may have `size` bytes of RAM."""
    if size < MIN_RAM:
        raise BadRequestError(
            f"{format_size(size)} of memory is too little", f"at least {format_size(MIN_RAM)}"
        )
    check_size(size)


def machine_kind(machine: str) -> str:
    """A definition's `machine` without its options."""
    return machine.partition(",")[0]


def check_machine(machine: str) -> None:
    """Raises BadRequestError unless a VM's machine may be called so."""
    kind, *options = machine.split(",")
    if kind not in MACHINES:
        raise BadRequestError(f"no machine called {kind!r}", f"there are: {', '.join(MACHINES)}")
    for option in options:
        if not _MACHINE_OPTION.fullmatch(option):
            raise BadRequestError(f"not a machine option: {option!r}", "write it like hpet=on")
        if option.partition("=")[0] in _FIXED_OPTIONS:
            raise BadRequestError(
                f"the machine option {option!r} is not yours to set",
                "it is another option's (`multiroot vm run --help`), or has to be the same for all VMs",
            )
    check_given_once(options, machine)


def check_firmware(firmware: str) -> None:
    """Raises BadRequestError unless there is such a firmware."""
    if firmware not in FIRMWARES:
        raise BadRequestError(f"no firmware called {firmware!r}", f"there are: {', '.join(FIRMWARES)}")


def _check_start(definition: VmDefinition) -> None:
    """Raises BadRequestError unless a VM can start like that."""
    check_firmware(definition.firmware)
    kind = machine_kind(definition.machine)
    if definition.user_data:
        check_user_data(definition.user_data)
    if kind != "q35" and (definition.disks or definition.user_data or definition.firmware != DIRECT):
        raise BadRequestError("only a q35 machine can have disks and a firmware", f"the machine is {kind}")
    if definition.boots_a_disk and definition.append:
        raise BadRequestError(
            "parameters are for a kernel that is given directly",
            f"with {definition.firmware} the disk's boot loader has its own",
        )
    _check_kernel(definition)
    _check_watchdog(definition)
    _check_boot_order(definition)


def _check_kernel(definition: VmDefinition) -> None:
    """Raises BadRequestError for files that nothing would start."""
    if max(len(definition.kernel), len(definition.initrd)) > PATH_MOST:
        raise BadRequestError(f"the name of a file is longer than {PATH_MOST} characters")
    if definition.initrd and not definition.kernel:
        raise BadRequestError("an initrd is given without its kernel", "give it, too: --kernel FILE")
    if definition.kernel and definition.boots_a_disk:
        raise BadRequestError(
            f"a kernel is given, and {definition.firmware} starts what is on the disk",
            f"--firmware {DIRECT} starts the kernel, and it has the disk all the same",
        )


def _check_watchdog(definition: VmDefinition) -> None:
    """Raises BadRequestError for a watchdog that the machine can't have, or an action that there is not."""
    action, kind = definition.watchdog, machine_kind(definition.machine)
    if action and action not in WATCHDOG_ACTIONS:
        raise BadRequestError(
            f"a watchdog's action can't be {action!r}", f"there are: {', '.join(WATCHDOG_ACTIONS)}"
        )
    if action and kind != "q35":
        raise BadRequestError("only a q35 machine can have a watchdog", f"the machine is {kind}")


def _check_boot_order(definition: VmDefinition) -> None:
    """Raises BadRequestError for an order that a firmware could not keep."""
    order = definition.boot_order
    if order and not definition.boots_a_disk:
        raise BadRequestError(
            "a boot order is for a firmware that starts what is on a disk",
            f"--firmware {SEABIOS} or {OVMF}, and --disk",
        )
    there = [disk.name_in_guest(number) for number in range(len(definition.disks))]
    for number, name in enumerate(order):
        if name not in there:
            raise BadRequestError(f"{definition.name} has no disk {name!r}", f"there are: {', '.join(there)}")
        if name in order[:number]:
            raise BadRequestError(f"the disk {name} is twice in the boot order", "say each once")


def _checked_cards(definition: VmDefinition) -> tuple[Card, ...]:
    """All cards of a VM, complete; raises BadRequestError also for what two of them have both."""
    if len(definition.cards) > MOST_CARDS:
        raise BadRequestError(
            f"a VM cannot have {len(definition.cards)} network cards", f"{MOST_CARDS} at most"
        )
    made = tuple(
        replace(card, mac=_mac(card.mac, definition.name, number), address=_address(card.address))
        for number, card in enumerate(definition.cards)
    )
    for number, card in enumerate(made):
        if not 1 <= card.queues <= min(definition.cpus, MOST_QUEUES):
            raise BadRequestError(
                f"a card of {definition.name} cannot have {card.queues} queues",
                f"1 to {MOST_QUEUES}, and not more than the VM has CPUs",
            )
        for other in made[:number]:
            if card.mac == other.mac:
                raise BadRequestError(
                    f"two cards of {definition.name} have the MAC address {card.mac}",
                    "leave one out, and it is made from the VM's name",
                )
            if card.address and card.address.partition("/")[0] == other.address.partition("/")[0]:
                raise BadRequestError(
                    f"two cards of {definition.name} have the address {card.address}", "give each its own"
                )
    return made


def shared_address(one: VmDefinition, other: VmDefinition) -> str:
    """A MAC address or an address that a card of each of two VMs has; "" if there is none."""
    taken = {each for card in other.cards for each in _addresses(card)}
    return next((each for card in one.cards for each in _addresses(card) if each in taken), "")


def _addresses(card: Card) -> Iterator[str]:
    yield card.mac
    if card.address:
        yield card.address.partition("/")[0]


def _mac(mac: str, name: str, number: int = 0) -> str:
    """`mac` in lower case; made from the name and the card's number if empty, with the prefix 52:54:00 that
    virtual cards have.
    """
    if not mac:
        low = zlib.crc32(f"{name}/{number}".encode() if number else name.encode()) & 0xFFFFFF
        return f"52:54:00:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"
    mac = mac.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise BadRequestError(
            f"not a MAC address for a network card: {mac!r}", "six bytes, the first one even"
        )
    if mac == _NO_MAC:
        # QEMU takes it for "not given", and makes up one that nobody here would know.
        raise BadRequestError(
            f"not a MAC address for a network card: {mac!r}",
            "leave it out, and it is made from the VM's name",
        )
    return mac


def _function(function: str, machine: str) -> str:
    match = _PCI_ADDRESS.fullmatch(function.lower())
    if not match:
        raise BadRequestError(f"not a PCI address: {function!r}", "write it like 01:00.0")
    if machine_kind(machine) != "q35":
        raise BadRequestError(
            "only a q35 machine can own a device", f"the machine is {machine_kind(machine)}"
        )
    return match[1]


def _address(address: str) -> str:
    if not address:
        return ""
    try:
        interface = ipaddress.IPv4Interface(address)
    except ValueError as error:
        raise BadRequestError(
            f"not an IPv4 address with prefix length: {address!r}", "write it like 10.77.1.1/16"
        ) from error
    if "/" not in address:
        raise BadRequestError(f"{address!r} lacks the prefix length", f"for instance {interface.ip}/16")
    if why := not_a_guests(interface):
        raise BadRequestError(
            f"a guest can't have the address {interface.ip}: it {why}", "10.77.1.1/16 and above are guests'"
        )
    return interface.with_prefixlen
