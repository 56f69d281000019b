# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from kexec.x86.bzimage import BzImage
from plan.strategies import machine

from multiroot.device.handle import Device
from multiroot.device.uapi import CpuState
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.launch import carve, kernels, record, session
from multiroot.launch.carve import Taken
from multiroot.launch.facts import facts_of, facts_without_module
from multiroot.launch.kernels import KernelFiles
from multiroot.launch.load import Entry
from multiroot.launch.session import Prepared
from multiroot.plan.request import Request

from .fakes import FakeDevice


@pytest.fixture
def files(tmp_path: Path) -> KernelFiles:
    folder = tmp_path / "kernels/6.12"
    folder.mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(BzImage().build())
    (folder / "initrd").write_bytes(b"070701")
    (folder / "config").write_text("CONFIG_HZ_250=y\nCONFIG_HZ=250\n")
    return kernels.find("6.12", kernels=tmp_path / "kernels")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What was taken from the system and given back, in order."""
    calls: list[tuple[str, object]] = []

    def take(plan: Any) -> Taken:
        calls.append(("take", tuple(cpu.number for cpu in plan.cpus)))
        return Taken(tuple(cpu.number for cpu in plan.cpus), plan.blocks)

    monkeypatch.setattr(carve, "take", take)
    for name in ("give_back", "online_cpus", "online_blocks"):
        monkeypatch.setattr(carve, name, lambda what, name=name: calls.append((name, what)))
    monkeypatch.setattr(session, "take_inventory", lambda device, facts: machine())
    monkeypatch.setattr(session, "this_boot", lambda: "boot")
    return calls


def prepare(device: FakeDevice, files: KernelFiles) -> Prepared:
    real = cast(Device, device)
    return session.prepare(real, facts_of(real), files, "quiet", lambda needed: Request(needed=needed))


def load(device: FakeDevice, files: KernelFiles) -> record.Loaded:
    real = cast(Device, device)
    return session.load(real, facts_of(real), prepare(device, files), session.phases())


@pytest.mark.usefixtures("taken")
def test_prepare_changes_nothing(files: KernelFiles) -> None:
    device = FakeDevice()
    prepared = prepare(device, files)
    assert not device.claimed
    assert "lpj=8000000" in prepared.boot.command_line
    assert prepared.boot.command_line.endswith("multiroot.root=2 quiet")


def test_load_start_stop(files: KernelFiles, taken: list[tuple[str, object]]) -> None:
    device = FakeDevice()
    real = cast(Device, device)
    loaded = load(device, files)
    assert taken == [("take", (2, 3))]
    assert device.carved
    assert [device.cpus[n] for n in (2, 3)] == [CpuState.GRANTED] * 2
    assert device.memory[loaded.entry.boot_params]
    assert session.state(real, loaded) == "loaded"

    running, started = session.start(real, loaded, 1000)
    assert running.start_tsc == started.tsc_sipi == 1000
    assert device.entered == {"cpu": 2, **loaded.entry.to_dict()}

    session.stop(real, running)
    assert taken[1:] == [("online_cpus", (2, 3)), ("online_blocks", ())]
    assert not device.carved
    assert [device.cpus[n] for n in (2, 3)] == [CpuState.OFFLINE] * 2
    session.stop(real, running)  # again, as after a failure half way


@pytest.mark.parametrize(
    ("fail", "at"), [("claim", None), ("carve", None), ("grant", 2), ("grant", 3), ("write_segment", 4)]
)
def test_a_failed_load_leaves_nothing_behind(
    files: KernelFiles, taken: list[tuple[str, object]], fail: str, at: object
) -> None:
    device = FakeDevice(fail, at)
    with pytest.raises(ConflictError, match=f"{fail} refused"):
        load(device, files)
    assert not device.carved
    assert set(device.cpus.values()) == {CpuState.OFFLINE}
    assert taken in ([], [("take", (2, 3)), ("give_back", Taken((2, 3), ()))])
    assert bool(taken) == (fail != "claim")


def test_loading_twice(files: KernelFiles, taken: list[tuple[str, object]]) -> None:
    device = FakeDevice()
    load(device, files)
    with pytest.raises(ConflictError, match="loaded already"):
        load(device, files)
    assert len(taken) == 1


@pytest.mark.usefixtures("taken")
def test_records_survive_and_void_with_the_boot(files: KernelFiles, tmp_path: Path) -> None:
    path = tmp_path / "run/loaded.json"
    assert record.find(path, "boot") is None
    loaded = load(FakeDevice(), files)
    record.save(loaded, path)
    assert record.find(path, "boot") == loaded
    record.save(replace(loaded, start_tsc=5), path)
    found = record.find(path, "boot")
    assert found
    assert found.start_tsc == 5
    assert [each.name for each in path.parent.iterdir()] == ["loaded.json"]
    assert record.find(path, "another boot") is None
    record.remove(path)
    record.remove(path)
    assert record.find(path, "boot") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": 7}'])
def test_damaged_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "loaded.json"
    path.write_text(text)
    with pytest.raises(MultirootError, match="is damaged"):
        record.find(path, "boot")


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("key", ["plan", "entry", "taken", "root"])
def test_records_with_a_part_missing(files: KernelFiles, tmp_path: Path, key: str) -> None:
    path = tmp_path / "loaded.json"
    data = load(FakeDevice(), files).to_dict()
    data[key] = None
    path.write_text(json.dumps(data))
    with pytest.raises(MultirootError, match="is damaged"):
        record.find(path, "boot")


def test_entries_round_trip() -> None:
    entry = Entry(1, 2, 3, 4, 5)
    assert Entry.from_dict(entry.to_dict()) == entry
    with pytest.raises(BadRequestError, match="not an entry"):
        Entry.from_dict({"page_table": 1})


def test_finding_kernels(files: KernelFiles, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    assert files.initrd == folder / "6.12/initrd"
    own = kernels.find("6.12", str(tmp_path / "kernels/6.12/config"), folder)
    assert own.initrd == folder / "6.12/config"
    by_path = kernels.find(str(folder / "6.12/vmlinuz"), "", folder)
    assert by_path == KernelFiles(folder / "6.12/vmlinuz", None)
    assert by_path.read()[1] == b""
    with pytest.raises(BadRequestError) as caught:
        kernels.find("7.9", kernels=folder)
    assert "installed: 6.12" in caught.value.hint
    with pytest.raises(BadRequestError, match="there is no file"):
        kernels.find("6.12", "/nowhere/initrd", folder)
    with pytest.raises(BadRequestError, match="can not read"):
        KernelFiles(folder, None).read()


def test_hz_of_a_kernel(files: KernelFiles, tmp_path: Path) -> None:
    assert kernels.config_hz("6.12.1-test", files.kernel) == 250
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/config-9.9").write_text("# CONFIG_HZ_250 is not set\nCONFIG_HZ=1000\n")
    elsewhere = tmp_path / "vmlinuz"
    assert kernels.config_hz("9.9", elsewhere, tmp_path) == 1000
    assert kernels.config_hz("9.8", elsewhere, tmp_path) == 0


def test_facts_without_the_module(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = "processor\t: 0\ncpu MHz\t\t: 2596.149\napicid\t\t: 4\n"
    (tmp_path / "proc/cpuinfo").write_text(text)
    facts = facts_without_module(tmp_path)
    assert (facts.boot_hardware_id, facts.tsc_khz, facts.next_root) == (4, 2_596_000, 2)
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\n")
    with pytest.raises(MultirootError, match="no APIC id or no clock rate"):
        facts_without_module(tmp_path)
