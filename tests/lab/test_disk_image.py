# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk debian-13 boots by itself in a machine of the emulator's: by a BIOS and by UEFI, from each kind of
disk, with a seed and without; SSH lets in who has the key, and the power button turns it off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk_machine import DiskMachine, drive, persistent_memory

from multiroot import proc
from multiroot.lab import build, disk_image, lab, roots, seed
from multiroot.phases import Phases
from multiroot.units import GIB

# Seconds, many times what was seen: an emulated CPU on a busy workstation.
BOOT_S = 900.0
COMMAND_S = 300.0
END_S = 300.0
HOST_NAME = "web-1"
BLOCK = "virtio-blk-pci"

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Parts:
    """What machines are made of. `folder` has the disk and what is beside it."""

    emulator: Path
    tools: Path
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / disk_image.DISK


@dataclass(frozen=True)
class Login:
    """A seed, and the private key that it lets in."""

    seed: Path
    key: Path


@pytest.fixture(scope="module")
def parts() -> Parts:
    return make_parts()


@pytest.fixture
def login(tmp_path: Path, parts: Parts) -> Login:
    return make_login(tmp_path, parts)


def make_parts() -> Parts:
    cache = lab.cache(Phases("workstation"))
    emulator = cache.ensure(build.emulator_artifact()) / roots.TREE
    return Parts(emulator, disk_image.tools(cache), disk_image.build("debian-13", cache))


def make_login(folder: Path, parts: Parts) -> Login:
    key = folder / "key"
    proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key])
    wanted = seed.make_seed(HOST_NAME, [key.with_suffix(".pub").read_text()])
    seed.write_image(wanted, folder / "seed.img")
    return Login(folder / "seed.img", key)


def with_seed(login: Login) -> list[str]:
    return drive(login.seed, BLOCK, name="seed")


def by_uefi(parts: Parts) -> list[str]:
    return ["-bios", str(parts.tools / "usr/share/ovmf/OVMF.fd")]


def by_kernel(parts: Parts) -> list[str]:
    """For disks that no firmware can read."""
    files = {"-kernel": disk_image.KERNEL, "-initrd": disk_image.INITRD}
    words = [word for name, file in files.items() for word in (name, str(parts.folder / file))]
    return [*words, "-append", (parts.folder / disk_image.CMDLINE).read_text().strip()]


def said(machine: DiskMachine, login: Login, command: str) -> str:
    """What a command in the guest prints."""
    done = machine.ssh(command, login.key, timeout=COMMAND_S)
    assert done.returncode == 0, (command, done)
    return done.stdout.strip()


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_it_boots_lets_the_key_in_and_is_turned_off(
    firmware: str, parts: Parts, login: Login, tmp_path: Path
) -> None:
    before = parts.disk.stat().st_mtime_ns
    options = [*drive(parts.disk, BLOCK), *with_seed(login), *(by_uefi(parts) if firmware == "uefi" else [])]
    with DiskMachine(parts.emulator, tmp_path, options) as machine:
        machine.serial.wait(f"{HOST_NAME} login: ", BOOT_S)
        assert said(machine, login, "systemctl is-system-running --wait") == "running"
        assert said(machine, login, "uname -r").endswith("-amd64")
        assert said(machine, login, "fio --version").startswith("fio-")
        assert said(machine, login, "psql --version").startswith("psql (PostgreSQL)")
        assert said(machine, login, "sudo -u postgres psql -Atc 'select 6 * 7'") == "42"
        assert said(machine, login, "test -d /sys/firmware/efi && echo uefi || echo bios") == firmware
        assert machine.press_power_button(END_S) == "guest-shutdown"
    assert parts.disk.stat().st_mtime_ns == before


def test_nobody_gets_in_without_the_key(parts: Parts, login: Login, tmp_path: Path) -> None:
    """There is no password to guess, and another key will not do."""
    other = tmp_path / "other"
    proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other])
    options = [*drive(parts.disk, BLOCK), *with_seed(login)]
    with DiskMachine(parts.emulator, tmp_path, options) as machine:
        machine.serial.wait(f"{HOST_NAME} login: ", BOOT_S)
        assert said(machine, login, "whoami") == "debian"
        refused = machine.ssh("true", other, timeout=COMMAND_S)
        assert refused.returncode == 255
        # What it would let in by: no password, and nothing that asks for one.
        assert "Permission denied (publickey)" in refused.stderr


def test_it_needs_neither_network_nor_seed(parts: Parts, tmp_path: Path) -> None:
    with DiskMachine(parts.emulator, tmp_path, drive(parts.disk, BLOCK), network=False) as machine:
        machine.serial.wait("debian login: ", BOOT_S)
        assert machine.press_power_button(END_S) == "guest-shutdown"


@pytest.mark.parametrize("kind", ["nvme", "scsi", "nvdimm", "virtio-pmem"])
def test_it_boots_from_each_kind_of_disk(kind: str, parts: Parts, login: Login, tmp_path: Path) -> None:
    options, device = {
        "nvme": (drive(parts.disk, "nvme,serial=1"), "nvme0n1p3"),
        "scsi": (drive(parts.disk, "virtio-scsi-pci", "scsi-hd"), "sda3"),
        "nvdimm": ([*persistent_memory(parts.disk, "nvdimm"), *by_kernel(parts)], "pmem0p3"),
        "virtio-pmem": ([*persistent_memory(parts.disk, "virtio-pmem-pci"), *by_kernel(parts)], "pmem0p3"),
    }[kind]
    with DiskMachine(parts.emulator, tmp_path, [*options, *with_seed(login)]) as machine:
        machine.serial.wait(f"{HOST_NAME} login: ", BOOT_S)
        assert said(machine, login, "findmnt -no SOURCE /") == f"/dev/{device}"
        assert said(machine, login, "systemctl is-system-running --wait") == "running"
        assert machine.press_power_button(END_S) == "guest-shutdown"


def test_a_larger_disk_is_used_to_its_end(parts: Parts, login: Login, tmp_path: Path) -> None:
    disk = tmp_path / "large.raw"
    disk_image.copy_to(parts.disk, disk, Phases("workstation"))
    os.truncate(disk, 10 * GIB)
    with DiskMachine(parts.emulator, tmp_path, [*drive(disk, BLOCK), *with_seed(login)]) as machine:
        machine.serial.wait(f"{HOST_NAME} login: ", BOOT_S)
        assert int(said(machine, login, "findmnt -bno SIZE /")) > 9 * GIB
        assert said(machine, login, "systemctl is-system-running --wait") == "running"
        assert machine.press_power_button(END_S) == "guest-shutdown"
