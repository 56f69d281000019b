# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of a lab machine, and its state folder."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path

import pytest
from lab.machines import default_machine
from vm.qemu_options import parse

from multiroot import processes
from multiroot.cli import agent
from multiroot.errors import BadRequestError, MultirootError, PeerLostError
from multiroot.lab import accel, host, state
from multiroot.lab import lab as labs
from multiroot.lab.build import BootKernel, Built
from multiroot.lab.machine import Machine, MachineDevice, kernel_cmdline, qemu_argv
from multiroot.lab.state import Attempt, LabState
from multiroot.rpc import client
from multiroot.units import MIB


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return default_machine(tmp_path, monkeypatch)


def option(argv: list[str], name: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == name]


def test_the_kernel_learns_of_consoles_and_memory(machine: Machine) -> None:
    assert kernel_cmdline(machine).split() == [
        "console=ttyS1,115200",
        "memmap=0x18000000!0x100000000",
        "memmap=0x40000000$0x118000000",
        "no_ipi_broadcast=1",
        "memmap=192K$0x10000",
    ]
    free = dataclasses.replace(machine, low_reserved=False)
    assert "$0x10000" not in kernel_cmdline(free)


def test_qemu_runs_from_its_own_root(machine: Machine) -> None:
    argv = qemu_argv(dataclasses.replace(machine, accelerator="kvm"))
    library = "/cache/emulator/tree/usr/lib/x86_64-linux-gnu"
    assert argv[:4] == [
        f"{library}/ld-linux-x86-64.so.2",
        "--library-path",
        library,
        "/cache/emulator/tree/usr/bin/qemu-system-x86_64",
    ]
    share = "/cache/emulator/tree/usr/share"
    assert option(argv, "-L") == [f"{share}/qemu", f"{share}/seabios"]


def test_memory_and_image_are_as_laid_out(machine: Machine) -> None:
    argv = qemu_argv(machine)
    assert option(argv, "-m") == ["3456M,slots=1,maxmem=5504M"]
    assert "nvdimm=on" in option(argv, "-machine")[0]
    backend = f"memory-backend-file,id=image,mem-path=/cache/image/system.erofs,size={424 * MIB}"
    assert f"{backend},share=on,readonly=on" in option(argv, "-object")
    assert "nvdimm,memdev=image,unarmed=on" in option(argv, "-device")


def test_the_new_roots_port_comes_first_and_only_loopback_is_forwarded(machine: Machine) -> None:
    argv = qemu_argv(machine)
    assert option(argv, "-serial") == ["chardev:new", "chardev:old"]
    network = option(argv, "-netdev")[0]
    assert "hostfwd=tcp:127.0.0.1:40001-10.0.2.15:7700" in network
    assert "hostfwd=tcp:127.0.0.1:40002-10.0.2.15:7701" in network
    assert network.count("hostfwd") == network.count("127.0.0.1")


def test_whatever_is_in_a_path_arrives_in_qemu(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a,b=c,,server=off d\u00e9"
    monkeypatch.setenv("XDG_STATE_HOME", str(odd))
    device = MachineDevice("nvme,serial=x", network=False, disk=MIB)
    card = MachineDevice("igb", network=True)
    there = dataclasses.replace(
        machine, state=state.folder("default"), image=odd / "image", devices=(device, card)
    )
    argv = qemu_argv(there)
    values = [
        parse(value) for name in ("-chardev", "-object", "-drive", "-netdev") for value in option(argv, name)
    ]
    found = [dict(pairs) for pairs in values]
    paths = {value for each in found for name, value in each.items() if name.endswith(("path", "file"))}
    assert all(path.startswith(f"{odd}/") for path in paths)
    assert len(paths) == 8
    assert all(each.get("server", "on") == "on" for each in found)
    assert option(argv, "-D") == [str(there.state / "cpu.log")]


@pytest.mark.parametrize(("accelerator", "option_value"), [("tcg", "tcg,thread=multi"), ("kvm", "kvm")])
def test_accelerator(machine: Machine, accelerator: str, option_value: str) -> None:
    argv = qemu_argv(dataclasses.replace(machine, accelerator=accelerator))
    assert option(argv, "-accel") == [option_value]


def test_only_the_software_emulation_is_mended(machine: Machine) -> None:
    assert option(qemu_argv(machine), "--preload") == ["/cache/program-svm/svm"]
    assert "--preload" not in qemu_argv(dataclasses.replace(machine, accelerator="kvm"))


@pytest.mark.parametrize(("hold", "end"), [(False, "poweroff"), (True, "pause")])
def test_a_reset_ends_the_machine_or_leaves_it_paused(machine: Machine, hold: bool, end: str) -> None:
    argv = qemu_argv(dataclasses.replace(machine, hold=hold))
    assert "-no-reboot" in argv
    assert option(argv, "-action") == [f"shutdown={end}"]


def test_the_state_survives_a_round_trip(machine: Machine) -> None:
    lab = state.create(machine, "digest")
    lab.pid, lab.started = 17, 23
    lab.attempts = [Attempt("not ready after 40 s, silent for 40 s", 40.1), Attempt("ready", 7.5)]
    lab.save()
    assert state.load("default") == lab
    assert lab.retries() == 1
    assert state.names() == ["default"]


def test_resets_are_counted_from_events(machine: Machine) -> None:
    lab = state.create(machine, "digest")
    assert lab.resets() == 0
    events = [
        {"ns": 1, "event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}},
        {"ns": 2, "event": "SHUTDOWN", "data": {"guest": False, "reason": "host-signal"}},
        {"ns": 3, "event": "EXIT", "data": {}},
    ]
    (lab.folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert lab.resets() == 1


def test_a_machine_that_has_ended_and_is_alive_is_held(machine: Machine) -> None:
    lab = state.create(machine, "digest")
    lab.pid, lab.started = os.getpid(), processes.start_time(os.getpid())
    assert not lab.held()
    (lab.folder / state.EVENTS_LOG).write_text(
        json.dumps({"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}) + "\n"
    )
    assert lab.held()
    lab.pid = 0
    assert not lab.held()


def test_a_process_that_is_gone_or_another_is_not_ours(machine: Machine) -> None:
    mine = LabState(machine, "d", pid=os.getpid(), started=processes.start_time(os.getpid()))
    assert mine.alive()
    assert not dataclasses.replace(mine, started=mine.started + 1).alive()
    assert not LabState(machine, "d").alive()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b"])
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(BadRequestError, match="not a name for a lab"):
        state.folder(name)


def test_a_path_too_long_for_sockets_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("x" * 100)))
    with pytest.raises(BadRequestError, match="too long for sockets"):
        state.folder("default")


def test_a_lab_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))
    with pytest.raises(BadRequestError, match="no lab called 'nobody'"):
        state.load("nobody")


def test_devices_sit_behind_ports_of_their_own(machine: Machine) -> None:
    """Bus numbers follow the order of the recipe; a card's other end is a socket of the lab's."""
    devices = (MachineDevice("igb,mac=52:54:00:00:01:01", network=True), MachineDevice("edu", network=False))
    argv = qemu_argv(dataclasses.replace(machine, iommu="intremap=off", devices=devices))
    found = option(argv, "-device")
    assert "intel-iommu,intremap=off" in found
    assert "igb,mac=52:54:00:00:01:01,bus=port1,netdev=card1" in found
    assert "edu,bus=port2" in found
    assert [word for word in found if word.startswith("pcie-root-port")] == [
        "pcie-root-port,id=port1,bus=pcie.0,chassis=1,addr=0x10",
        "pcie-root-port,id=port2,bus=pcie.0,chassis=2,addr=0x11",
    ]
    assert any(str(machine.state / "card1.sock") in word for word in option(argv, "-netdev"))


def test_what_a_machine_lacks_and_whose_iommu_it_has(machine: Machine) -> None:
    chosen = dataclasses.replace(machine, iommu="intremap=on", iommu_vendor="amd", without=("hpet", "pit"))
    assert option(qemu_argv(chosen), "-machine") == ["q35,nvdimm=on,hpet=off,pit=off"]
    assert "amd-iommu,intremap=on" in option(qemu_argv(chosen), "-device")
    assert option(qemu_argv(machine), "-machine") == ["q35,nvdimm=on"]


def test_a_kernel_is_told_the_frequency(machine: Machine) -> None:
    assert "tsc_early_khz" not in kernel_cmdline(machine)
    assert "tsc_early_khz=2300000" in kernel_cmdline(dataclasses.replace(machine, tsc_khz=2_300_000)).split()


def test_devices_behind_a_second_host_bridge(machine: Machine) -> None:
    devices = (MachineDevice("edu", network=False), MachineDevice("edu", network=False, second_bridge=True))
    found = option(qemu_argv(dataclasses.replace(machine, devices=devices)), "-device")
    bridge, ours = "pxb-pcie,id=bridge2,bus=pcie.0,bus_nr=64", "pcie-root-port,id=port2,bus=bridge2,"
    assert found.index(bridge) < next(i for i, word in enumerate(found) if word.startswith(ours))
    assert "pcie-root-port,id=port1,bus=pcie.0,chassis=1,addr=0x10" in found
    assert not any("pxb" in word for word in option(qemu_argv(machine), "-device"))


def test_sparse_memory_is_not_asked_of_the_workstation(machine: Machine) -> None:
    """QEMU's own RAM is: the kernel refuses a mapping that is larger than all memory."""
    argv = qemu_argv(dataclasses.replace(machine, sparse=True))
    (memory,) = [word for word in argv if word.startswith("memory-backend-ram,")]
    assert {f"size={machine.layout.ram // MIB}M", "reserve=off"} < set(memory.split(","))
    assert "memory-backend=ram" in argv


def test_nodes_share_cpus_and_all_of_the_memory(machine: Machine) -> None:
    argv = qemu_argv(dataclasses.replace(machine, nodes=2, cpus=4))
    half = machine.layout.ram // 2 // MIB
    assert option(argv, "-numa") == [
        "node,nodeid=0,cpus=0-1,memdev=node0",
        "node,nodeid=1,cpus=2-3,memdev=node1",
    ]
    assert f"memory-backend-ram,id=node1,size={half}M" in option(argv, "-object")
    assert f"{2 * half}M" == option(argv, "-m")[0].partition(",")[0]
    assert option(argv, "-smp") == ["4,sockets=2"]
    assert "-numa" not in qemu_argv(machine)


def up(machine: Machine, name: str, port: int) -> LabState:
    """A lab whose QEMU lives: this process plays it."""
    named = dataclasses.replace(machine, name=name, agent_port=port, state=state.folder(name))
    lab = state.create(named, "digest")
    lab.pid, lab.started = os.getpid(), processes.start_time(os.getpid())
    lab.save()
    return lab


@pytest.fixture
def workstation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MULTIROOT_AGENT", raising=False)
    monkeypatch.setattr(client, "AGENT_SOCKET", tmp_path / "no agent here")


@pytest.mark.usefixtures("workstation")
def test_commands_go_to_the_lab_that_runs(machine: Machine) -> None:
    with pytest.raises(PeerLostError, match="no agent to talk to"):
        agent.agent_target()
    dead = up(machine, "dead", 40009)
    dead.pid = 0
    dead.save()
    with pytest.raises(PeerLostError, match="no agent to talk to"):
        agent.agent_target()
    up(machine, "demo", 40011)
    assert str(agent.agent_target()) == "127.0.0.1:40011"


@pytest.mark.usefixtures("workstation")
def test_of_several_labs_commands_go_to_the_default_one(machine: Machine) -> None:
    up(machine, "demo", 40011)
    up(machine, "bench", 40012)
    with pytest.raises(BadRequestError, match=r"bench \(127.0.0.1:40012\), demo \(127.0.0.1:40011\)"):
        agent.agent_target()
    up(machine, "default", 40013)
    assert str(agent.agent_target()) == "127.0.0.1:40013"


@pytest.mark.usefixtures("workstation")
def test_a_dead_lab_of_another_version_is_in_nobodys_way(machine: Machine) -> None:
    old = up(machine, "old", 40009).folder / "lab.json"
    old.write_text(json.dumps({"pid": 0, "started": 0, "machine": {}}))
    up(machine, "demo", 40011)
    assert str(agent.agent_target()) == "127.0.0.1:40011"


@pytest.mark.usefixtures("workstation")
def test_a_lab_of_another_version_that_runs_is_in_the_way_of_its_own_commands_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = up(machine, "a", 40009).folder / "lab.json"
    data = json.loads(path.read_text())
    del data["machine"]["cpus"]
    path.write_text(json.dumps(data))
    demo = up(machine, "demo", 40011)
    monkeypatch.setenv("MULTIROOT_AGENT", demo.agent_target)
    assert agent.agent_target() == demo.agent_address
    monkeypatch.setenv("MULTIROOT_AGENT", "127.0.0.1:40009")
    with pytest.raises(BadRequestError, match="'a' was started by another version"):
        agent.agent_target()
    monkeypatch.delenv("MULTIROOT_AGENT")
    with pytest.raises(BadRequestError, match="several labs run: a "):
        agent.agent_target()
    up(machine, "default", 40013)
    assert str(agent.agent_target()) == "127.0.0.1:40013"


@pytest.mark.usefixtures("workstation")
def test_a_lab_has_a_token_of_its_own_that_its_commands_know(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, bench = up(machine, "demo", 40011), up(machine, "bench", 40012)
    for lab in (demo, bench):
        file = lab.folder / "token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert lab.token == file.read_text().strip()
        words = option(qemu_argv(lab.machine), "-fw_cfg")
        assert words == [f"name=opt/multiroot/token,file={file}"]
        assert lab.token not in str((qemu_argv(lab.machine), lab.agent_address, lab))
    assert demo.token != bench.token
    monkeypatch.setenv("MULTIROOT_AGENT", "127.0.0.1:40012")
    assert agent.agent_target() == bench.agent_address
    monkeypatch.setenv("MULTIROOT_AGENT", "127.0.0.1:40099")
    assert agent.agent_target() == client.Address("127.0.0.1:40099")
    before = demo.token
    assert up(machine, "demo", 40011).token != before, "each machine has a new one"
    (demo.folder / "token").chmod(0o640)
    with pytest.raises(MultirootError, match="others may read"):
        _ = demo.agent_address


@pytest.mark.parametrize("name", ["default", "legacy-free"])
def test_a_first_kernel_under_emulation_does_not_measure_its_clock(name: str, tmp_path: Path) -> None:
    """On a busy workstation it was wrong by five times. KVM tells its guests."""
    for file in ("vmlinuz", "initrd", "system.erofs"):
        (tmp_path / file).write_bytes(bytes(MIB))
    kernel = BootKernel("6.12", "6.12.1", tmp_path / "vmlinuz", tmp_path / "initrd")
    built = Built(tmp_path, tmp_path, tmp_path / "system.erofs", "digest", {"6.12": kernel})
    wanted = labs.Options(machine=name, kernel="6.12")
    measured = labs.decide(wanted, built, accel.TCG).tsc_khz
    assert measured == pytest.approx(host.tsc_khz(), rel=1e-3)
    assert labs.decide(wanted, built, accel.KVM).tsc_khz == 0
