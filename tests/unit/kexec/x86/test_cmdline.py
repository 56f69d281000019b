# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.kexec.x86.cmdline import CommandLine, assemble, required, reusable

SPEC = CommandLine(root=2, shared=0x1_1820_0000, tsc_khz=2_000_000, x2apic=False)


def test_what_every_root_needs() -> None:
    assert assemble(SPEC, 2047) == (
        "pci=off tsc=reliable tsc_early_khz=2000000 no_ipi_broadcast=1 apic_extnmi=none 8250.nr_uarts=1 "
        "console=ttyS0,115200 multiroot.shared=0x118200000 multiroot.root=2"
    )


def test_what_only_some_need() -> None:
    assert "nox2apic" in required(replace(SPEC, x2apic=True))
    assert "lpj=8000000" in required(replace(SPEC, hz=250))
    assert not [word for word in required(SPEC) if word.startswith("lpj=")]


def test_the_users_part_comes_last() -> None:
    line = assemble(replace(SPEC, user="  quiet -- single "), 2047)
    assert line.endswith("multiroot.root=2 quiet -- single")


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("noapic", "noapic can not be used, it makes the new root unmask"),
        ("quiet acpi=off", "acpi=off"),
        ("acpi=noirq", "acpi=noirq"),
        ("multiroot.root=3", "multiroot.root is set by us"),
        ("a\nb", "printable"),
        ("caf\u00e9", "printable"),
        ("a\0b", "printable"),
    ],
)
def test_what_the_user_may_not_say(user: str, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        assemble(replace(SPEC, user=user), 2047)


@given(st.integers(0, 3000), st.integers(300, 2047))
def test_length_is_limited(size: int, limit: int) -> None:
    ours = " ".join(required(SPEC))
    fits = len(ours) + (size + 1 if size else 0) <= limit
    spec = replace(SPEC, user="x" * size)
    if fits:
        assert len(assemble(spec, limit)) <= limit
    else:
        with pytest.raises(BadRequestError, match=f"may have {limit - len(ours) - 1} bytes"):
            assemble(spec, limit)


def test_reuse_drops_what_was_for_the_old_root_only() -> None:
    running = (
        "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet memmap=1G$0x118000000 movablecore=1G maxcpus=2 "
        "console=ttyS1 no_ipi_broadcast=1 multiroot.shared=0x1 multiroot.root=1 systemd.unit=x memtest=1"
    )
    assert reusable(running) == "root=/dev/vda1 ro quiet systemd.unit=x memtest=1"
    assert assemble(replace(SPEC, user=reusable(running)), 2047).count("multiroot.root=") == 1
