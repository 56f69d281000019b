# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's CPU is written out when it first starts, and a root that can't give it says what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from anything import made_or_refused
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError, CommandError, ConflictError, MultirootError
from multiroot.vm import cpu_model
from multiroot.vm.cpu_model import Value, check_given, parse
from multiroot.vm.definition import VmDefinition
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance
from multiroot.vm.manager import VmManager
from multiroot.vm.qemu import cpu as cpus
from multiroot.vm.qemu import probe
from multiroot.vm.qemu.command import Qemu, cpu
from multiroot.vm.qemu.cpu import from_expansion, lacking, physical_bits, tsc_refused
from multiroot.vm.qemu.kvm import tsc_khz
from multiroot.vm.qemu.options import option
from multiroot.vm.qemu.vmm import QemuFactory

TINY = VmDefinition("vm0", ram_bytes=32 << 20, guest="tiny", cpu="frozen")
FAKE_HOST = "base,family=23,lm=on,model-id=fake max,svm=on"
names = st.from_regex(r"[a-z0-9][a-z0-9._-]*", fullmatch=True)
texts = st.text("abcXYZ 0-9().@+=", min_size=1).filter(lambda text: text not in ("on", "off"))
values = st.booleans() | st.integers(min_value=0) | texts.filter(lambda text: not text.isdecimal())


@given(names, st.dictionaries(names, values))
def test_what_is_written_out_is_read_back(model: str, features: dict[str, Value]) -> None:
    fixed = {"check", "enforce", "migratable", "x-force-features"}
    kept = {name: value for name, value in features.items() if name not in fixed}
    assert parse(option(model, kept)) == (model, kept)


@given(st.text())
def test_any_text_is_a_cpu_or_refused(text: str) -> None:
    made = made_or_refused(lambda: parse(text))
    if not isinstance(made, MultirootError):
        assert parse(option(*made)) == made
        assert cpu_model.summary(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a CPU model: ''"),
        ("-x", "not a CPU model"),
        ("host,svm", "not a CPU feature: 'svm'"),
        ("host,+svm", "not a CPU feature"),
        ("host,svm=", "not a CPU feature"),
        ("host,svm=on,svm=off", "svm is given twice"),
        ("host,enforce=off", "'enforce=off' is not yours to set"),
        ("host,model-id=a\nb", "not a CPU feature"),
    ],
)
def test_bad_cpus(text: str, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        VmDefinition("vm0", cpu=text).checked()


def test_of_an_expansion_what_is_off_and_what_cannot_be_said_is_left_out() -> None:
    props = {"lm": True, "vmx": False, "family": 6, "model-id": "A, B", "vendor": "GenuineIntel"}
    answer = {"model": {"name": "base", "props": props}}
    more = {"phys-bits": 46, "tsc-frequency": 2_600_000_000}
    said = "base,family=6,lm=on,phys-bits=46,tsc-frequency=2600000000,vendor=GenuineIntel"
    assert from_expansion(answer, more) == said
    assert "phys-bits" not in from_expansion(answer, {"phys-bits": None})
    for bad in (None, {}, {"model": {"name": "base"}}, {"model": {"name": "base", "props": 5}}):
        with pytest.raises(CommandError, match="does not tell"):
            from_expansion(bad, {})


@pytest.mark.parametrize(
    ("model", "kept"),
    [("frozen", {"lm"}), ("frozen,cmpccxadd=on", {"lm", "cmpccxadd"}), ("EPYC", {"lm", "cmpccxadd", "vnmi"})],
)
async def test_frozen_is_what_the_oldest_root_knows_too(
    model: str, kept: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    props = {"lm": True, "cmpccxadd": True, "vnmi": True}

    async def expanded(_qmp: object, _model: object, _program: Path) -> object:
        return {"model": {"name": "base", "props": props}}

    monkeypatch.setattr(probe, "asked", lambda _: nullcontext())
    monkeypatch.setattr(cpus, "_expanded", expanded)
    _, features = parse(await cpus.write_out(Qemu(accel="tcg"), model))
    assert set(features) == kept


def test_address_bits() -> None:
    assert physical_bits("x\naddress sizes\t: 48 bits physical, 57 bits virtual\n") == 48
    assert physical_bits("nothing of that kind") is None


def test_what_qemu_misses_is_found_in_its_words() -> None:
    log = """
qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID[eax=01h].ECX.sse4.1 [bit 19]
qemu-system-x86_64: warning: host doesn't support requested feature: CPUID[eax=07h,ecx=0].EBX.avx512f [bit 16]
qemu-system-x86_64: warning: host doesn't support requested feature: CPUID[eax=40000001h].EAX [bit 7]
qemu-system-x86_64: warning: host doesn't support requested feature: MSR(10AH).rdctl-no [bit 0]
qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.80000001H:ECX.osvw [bit 9]
qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.01H:ECX.sse4.2 [bit 20]
qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.0DH:EAX [bit 2]
qemu-system-x86_64: Host doesn't support requested features
"""
    nameless = "bit {} of a word without names"
    assert lacking(log) == [
        "sse4.1", "avx512f", nameless.format(7), "rdctl-no", "osvw", "sse4.2", nameless.format(2)
    ]  # fmt: skip
    assert lacking("qemu-system-x86_64: no such machine") == []


@pytest.mark.parametrize(
    ("model", "hertz"), [("frozen", 2_596_000_000), ("EPYC,tsc-frequency=2600000000", 2_600_000_000)]
)
async def test_a_guests_tsc_is_as_fast_as_where_it_first_ran(
    model: str, hertz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def expanded(_qmp: object, _model: object, _program: Path) -> object:
        return {"model": {"name": "base", "props": {"lm": True}}}

    monkeypatch.setattr(probe, "asked", lambda _: nullcontext())
    monkeypatch.setattr(cpus, "_expanded", expanded)
    monkeypatch.setattr(cpus, "tsc_khz", lambda: 2_596_000)
    _, features = parse(await cpus.write_out(Qemu(), model))
    assert features["tsc-frequency"] == hertz


def test_what_kvm_does_not_tell(tmp_path: Path) -> None:
    for device in (tmp_path / "absent", Path("/dev/null")):
        with pytest.raises(CommandError, match="KVM does not tell how fast a guest's TSC runs"):
            tsc_khz(device)


def test_a_tsc_that_a_root_cannot_give_is_found_in_qemus_words() -> None:
    # As QEMU 10.0 says it (target/i386/kvm/kvm.c).
    log = (
        "qemu-system-x86_64: warning: TSC frequency mismatch between VM (2600000 kHz) and host (2596000 kHz)"
        ", and TSC scaling unavailable\nqemu-system-x86_64: kvm_init_vcpu: kvm_arch_init_vcpu failed (0)\n"
    )
    error = tsc_refused("vm0", log)
    assert error
    assert error.message == (
        "this root cannot give vm0 its TSC of 2600.000 MHz: its own has 2596.000 MHz, and its CPUs scale none"
    )
    assert tsc_refused("vm0", "qemu-system-x86_64: no such machine") is None


def test_a_cpu_that_is_written_out_is_enforced() -> None:
    assert cpu(Qemu(), "base,lm=on") == "base,lm=on,enforce=on"
    assert (cpu(Qemu(), "host"), cpu(Qemu(accel="tcg"), "host")) == ("host", "max")


async def test_the_first_start_writes_it_out_and_later_ones_keep_it(host: Host, manager: VmManager) -> None:
    vm = await manager.run(TINY)
    assert vm.definition.cpu == FAKE_HOST
    assert vm.entry.record.definition == vm.definition.checksum()
    assert vm.folder.read() is not None
    await manager.stop("vm0")
    known = replace(TINY, cpu="base,lm=on")
    assert (await manager.run(known)).definition.cpu == "base,lm=on"


async def test_host_follows_the_root(host: Host, set_faults: Callable[[str], Path]) -> None:
    lacking_host = replace(host, vmm=QemuFactory(Qemu(set_faults("no-svm"), "tcg")))
    manager = VmManager(lacking_host)
    for text in ("host,svm=off", "host,lm=on,svm=off"):
        vm = await manager.run(replace(TINY, cpu=text))
        assert vm.definition.cpu == text
        assert vm.cpu.startswith("base,family=23,lm=on")
        record = vm.folder.read()
        assert record
        assert record.cpu == vm.cpu
        assert f"{vm.cpu},enforce=on" in command_line(vm)
        await manager.stop("vm0")


def command_line(vm: Instance) -> list[str]:
    assert vm.vmm.process
    return Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_text().split("\0")


@pytest.mark.parametrize(
    ("cpu", "given"),
    [("host", ""), ("host", "EPYC"), ("host", "base,lm=on,enforce=on"), ("base,lm=on", "base,lm=on")],
)
def test_what_a_guest_got_is_said_where_its_root_decided_and_nowhere_else(cpu: str, given: str) -> None:
    with pytest.raises(BadRequestError):
        check_given(cpu, given)
    check_given("host,svm=off", "base,lm=on")
    check_given("base,lm=on", "")


async def test_a_model_with_features(host: Host) -> None:
    assert await host.vmm.written_out("EPYC,svm=off") == "base,family=23,lm=on,model-id=fake EPYC"


async def test_an_unknown_model_changes_nothing(host: Host, set_faults: Callable[[str], Path]) -> None:
    refusing = replace(host, vmm=QemuFactory(Qemu(set_faults("refuse:query-cpu-model-expansion"), "tcg")))
    with pytest.raises(BadRequestError, match="no CPU 'nosuch' with these features: QEMU refused"):
        await VmManager(refusing).run(replace(TINY, cpu="nosuch"))
    assert host.arena.entries() == []


async def test_a_root_that_lacks_a_feature_names_it_and_nothing_is_left(
    host: Host, set_faults: Callable[[str], Path]
) -> None:
    lacking_host = replace(host, vmm=QemuFactory(Qemu(set_faults("no-svm"), "tcg")))
    manager = VmManager(lacking_host)
    with pytest.raises(ConflictError, match="cannot give vm0 its CPU, it lacks: svm"):
        await manager.run(TINY)
    assert host.arena.entries() == []
    assert manager.all() == []
