# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.kexec.x86.cmdline import OWN, REFUSED, CommandLine, Own, assemble, required, reusable

SPEC = CommandLine(root=2, shared=0x1_1820_0000, tsc_khz=2_000_000, x2apic=False)


def test_what_every_root_needs() -> None:
    assert assemble(SPEC, 2047) == (
        "pci=off tsc=reliable tsc_early_khz=2000000 no_ipi_broadcast=1 apic_extnmi=none 8250.nr_uarts=1 "
        "console=ttyS0,115200 dis_ucode_ldr multiroot.shared=0x118200000 multiroot.root=2"
    )


def test_what_only_some_need() -> None:
    assert "nox2apic" in required(replace(SPEC, x2apic=True))
    assert "clearcpuid=hfi" in required(replace(SPEC, cleared=("hfi",)))
    assert "lpj=8000000" in required(replace(SPEC, hz=250))
    assert not [word for word in required(SPEC) if word.startswith("lpj=")]


def test_a_feature_that_no_root_may_use_is_not_given_back_by_the_user() -> None:
    """The last list is the one that the kernel reads."""
    with pytest.raises(BadRequestError, match="clearcpuid=smap can not be used"):
        assemble(replace(SPEC, cleared=("hfi",), user="clearcpuid=smap"), 2047)
    assert assemble(replace(SPEC, user="clearcpuid=smap"), 2047).endswith(" clearcpuid=smap")


def test_the_users_part_comes_last() -> None:
    line = assemble(replace(SPEC, user="  quiet -- single "), 2047)
    assert line.endswith("multiroot.root=2 quiet -- single")


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("noapic", "noapic can not be used, it makes the new root unmask"),
        ('"noapic"', "unmask the legacy interrupt input"),
        ("noapic=", "unmask"),
        ("quiet acpi=off", "finds its CPUs and its UART through ACPI"),
        ("acpi=noirq", "through ACPI"),
        ("acpi=rsdt", "through ACPI"),
        ("acpi_rsdp=0xf5ab0", "through ACPI"),
        ("pnpacpi=off", "through ACPI"),
        ("disableapic", "no other interrupt controller or timer"),
        ("nolapic", "no other interrupt controller or timer"),
        ("nolapic-timer", "no other interrupt controller or timer"),
        ("pci=conf1", "pci=conf1 can not be used, the devices belong to the old root"),
        ("pci=off,conf1", "the devices belong"),
        ('pci="nomsi,conf1"', "the devices belong"),
        ("pci", "the devices belong"),
        ("no_ipi_broadcast=0", "CPUs of other roots"),
        ("no-ipi-broadcast=0", "CPUs of other roots"),
        ("apic_extnmi=all", "external NMIs"),
        ("8250.nr_uarts=4", "the other serial ports"),
        ("8250_core.nr-uarts=4", "the other serial ports"),
        ("tsc_early_khz=1", "count the same time"),
        ("tsc=unstable", "no clock to check it by"),
        ("notscx", "the only clock"),
        ("clocksource=hpet", "the only clock"),
        ("hpet=force", "the HPET belongs"),
        ("mem=1G", "choose its memory with --carve"),
        ("memmap=1G@0x100000000", "choose its memory with --carve"),
        ("maxcpus=1", "chosen with --cpus"),
        ("possible-cpus=1", "chosen with --cpus"),
        ("crashkernel=128M", "a crash kernel"),
        ("panic=10", "reset the machine"),
        ("sysctl.kernel.panic=10", "reset the machine"),
        ("reboot=k", "reset the machine"),
        ("intel_iommu=on", "the IOMMU"),
        ("console=ttyS1", "the other serial ports"),
        ("console=uart8250,io,0x2f8", "the other serial ports"),
        ("earlyprintk=ttyS0,serial,0x2f8", "the other serial ports"),
        ("earlycon=uart8250,io,0x2f8,115200", "the other serial ports"),
        ("i8042.nopnp", "the keyboard controller"),
        ("bootconfig", "nobody has checked"),
        ("multiroot.root=3", "the root's number in the ledger"),
        ("multiroot.shared=0", "shares memory"),
        ("multiroot.ledger=0x20000", "one ledger"),
        # The decompressor knows no "--" and no quotes; neither does modprobe.
        ("-- earlyprintk=serial,ttyS1,115200", "the other serial ports"),
        ('foo="x console=ttyS1"', "the other serial ports"),
        ("-- multiroot.root=3", "the root's number in the ledger"),
        ('foo="a', "a quote is not closed"),
        ("a\nb", "printable"),
        ("caf\u00e9", "printable"),
        ("a\0b", "printable"),
    ],
)
def test_what_the_user_may_not_say(user: str, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        assemble(replace(SPEC, user=user), 2047)


@pytest.mark.parametrize(
    "user",
    [
        "quiet -- single noapic",
        "pci=off tsc=reliable tsc=noirqtime console=ttyS0,115200 console=tty0",
        "earlyprintk=serial,ttyS0,115200,keep earlycon=uart8250,io,0x3f8,115200n8",
        "acpi=force hpet=disable clocksource=tsc panic=0 lpj=4000000 nox2apic",
        "netconsole=x foo=noapic pcie_aspm=off memtest=1 acpi_osi=Linux multiroot_iommu.inject=1",
        'dyndbg="file noapic.c +p"',
        "init=/bin/sh rdinit=/bin/sh root=/dev/pmem1",
    ],
)
def test_what_the_user_may_say(user: str) -> None:
    assert assemble(replace(SPEC, user=user), 2047).endswith(user)


WHOLE = replace(SPEC, x2apic=True, hz=250, cleared=("hfi",))


@pytest.mark.parametrize("spec", [WHOLE, replace(WHOLE, uart=1)])
@pytest.mark.parametrize("own", OWN, ids=lambda own: own.name)
def test_every_parameter_of_ours_is_protected(spec: CommandLine, own: Own) -> None:
    mine = own.value(spec)
    assert mine is not None
    for name in (own.name, *own.spellings):
        for word in (name, name.replace("_", "-"), name.replace("-", "_")):
            for said in (f"{word}={mine}0", f'"{word}={mine} 0"', f'{word}="{mine} 0"', f"{word}=", word):
                if mine:
                    with pytest.raises(BadRequestError, match="can not be used"):
                        assemble(replace(spec, user=f"quiet {said} {own.name}={mine}"), 2047)
        if mine:
            assert assemble(replace(spec, user=f'{name}="{mine}"'), 2047)


def test_ours_are_what_the_command_line_begins_with() -> None:
    assert [word.partition("=")[0] for word in required(WHOLE)] == [own.name for own in OWN]


def test_the_documentation_names_them_all() -> None:
    page = (Path(__file__).parents[4] / "docs/boot-protocol.md").read_text()
    names = [own.name for own in OWN] + [name for refused in REFUSED for name in refused.names]
    assert [name for name in names if not re.search(rf"`{re.escape(name)}[`=]", page)] == []


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=60))
def test_any_text_is_a_command_line_or_refused(user: str) -> None:
    try:
        assert assemble(replace(SPEC, user=user), 2047).startswith(" ".join(required(SPEC)))
    except BadRequestError:
        return


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
        "console=ttyS1 no_ipi_broadcast=1 multiroot.shared=0x1 multiroot.root=1 systemd.unit=x memtest=1 "
        '"memmap=1G$0x118000000 x" pci="conf1 y" dyndbg="file a.c +p" panic=-1 intel-iommu=on'
    )
    kept = reusable(running, "")
    assert kept == 'root=/dev/vda1 ro quiet systemd.unit=x memtest=1 dyndbg="file a.c +p"'
    assert assemble(replace(SPEC, user=kept), 2047).count("multiroot.root=") == 1


def test_reuse_keeps_what_is_for_init_behind_all_parameters() -> None:
    assert reusable("quiet -- single", "debug -- 5") == "quiet debug -- single 5"
    assert reusable("quiet\n", "") == "quiet"


def test_whatever_is_reused_is_accepted() -> None:
    for spec in (SPEC, replace(WHOLE, uart=1)):
        words = [f"{name}=1" for refused in REFUSED for name in refused.names] + list(required(WHOLE))
        assert reusable(" ".join(words), "") == ""
        assert assemble(replace(spec, user=reusable("root=/dev/vda quiet", "")), 2047)
