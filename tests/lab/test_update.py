# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job on real kernels: VMs go from one kernel to another, and what goes wrong changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import guests, scenario
from multiroot.lab import agents
from multiroot.lab.lab import Lab, kernel_name
from multiroot.launch.post_mortem import HEADING
from multiroot.phases import Phases
from multiroot.rpc import client
from multiroot.units import MIB
from multiroot.vm.ticks import continuity, parse


def play(lab: Lab, new_kernel: str, vms: int) -> None:
    options = scenario.Options(
        lab=replace_name(lab), new_kernel=kernel_name(new_kernel), vm_memory=256 * MIB, vms=vms
    )
    with (
        client.connect(lab.agent_address, root="old") as old,
        client.connect(lab.agent_address, root="new") as new,
    ):
        report = scenario.Scenario(lab, options, Phases("test"), old, new).play()
    assert [check for check in report.checks() if not check.held] == []
    assert report.to_json()["machine"]["resets"] == 0


def replace_name(lab: Lab) -> scenario.lab.Options:
    return replace(scenario.lab.Options(), name=lab.state.machine.name)


@pytest.mark.long
@pytest.mark.parametrize(("old", "new", "vms"), [("6.12", "newest", 2)])
def test_vms_go_to_another_kernel_and_the_old_one_lives_on(
    labs_factory: Labs, old: str, new: str, vms: int
) -> None:
    """Proves the demo's claims for a pair of stock kernels: no reset, no RAM copied, no tick lost.

    For 6.1 and 6.12 it is proven on the way in test_audit.py.
    """
    lab = labs_factory.fresh(kernel=old, vms=vms)
    play(lab, new, vms)
    labs_factory.discard(lab)


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A lab with one VM in the old root and no new root."""
    lab = labs_factory.fresh(kernel="6.12", vms=2)
    found = Cli(lab)
    found.ok("vm", "run", "steady", "--memory", "256M")
    yield found
    labs_factory.discard(lab)


@pytest.mark.parametrize(
    ("code", "says", "words"),
    [
        (3, "overlaps", ("root", "launch", "--kernel", "6.12", "--carve", "512M@0x10000000")),
        (3, "namespace", ("root", "launch", "--kernel", "6.12", "--carve", "256M@0x100000000")),
        (2, "aligned", ("root", "launch", "--kernel", "6.12", "--carve", "256M@0x118001000")),
        (2, "too small", ("root", "launch", "--kernel", "6.12", "--carve", "32M")),
        (3, "boot CPU", ("root", "launch", "--kernel", "6.12", "--cpus", "0")),
        (2, "CPU 9", ("root", "launch", "--kernel", "6.12", "--cpus", "9")),
        (2, "no kernel '5.4'", ("root", "launch", "--kernel", "5.4")),
        (2, "not an x86 kernel", ("root", "launch", "--kernel", "/etc/passwd")),
        (2, "no VM named 'nobody'", ("vm", "show", "nobody")),
        (2, "no VM named 'nobody'", ("vm", "stop", "nobody")),
        (3, "already a VM steady", ("vm", "run", "steady")),
        (2, "not a size", ("vm", "run", "other", "--memory", "lots")),
        (2, "more than the arena has", ("vm", "run", "other", "--memory", "64G")),
        (3, "largest", ("vm", "run", "other", "--memory", "700M")),
        (5, "no new root", ("handoff", "steady")),
        (5, "no new root", ("root", "show", "new")),
        (2, "not a root", ("root", "show", "newest")),
    ],
)
def test_bad_requests_get_one_line_and_change_nothing(
    cli: Cli, code: int, says: str, words: tuple[str, ...]
) -> None:
    """Proves that each bad request has its own exit code and leaves CPUs, memory and VMs as they were."""
    cli.refused(code, says, *words)


@pytest.mark.parametrize("step", ["carve", "offline", "load", "start"])
def test_an_update_is_taken_back_from_each_step(cli: Cli, step: str) -> None:
    """Proves that after an abort every CPU is online and works, memory is as it was, and the VM ticks on.

    With a new root that has joined and taken the VM it is taken back in test_retire.py.
    """
    before = cli.standing()
    cli.ok("update", "--kernel", "6.12", "--cpus", "3", "--until", step)
    data = cli.data("update", "abort")
    assert isinstance(data, dict)
    # Only what had been taken is given back: CPUs go after memory.
    assert data["cpus"] == ("" if step == "carve" else "3")
    assert data["memory_bytes"] > 0
    assert cli.standing() == before
    for cpu in range(4):
        assert cli.lab.run(["taskset", "-c", str(cpu), "nproc"]).stdout == "1\n"
    arena = json.loads(cli.lab.run(["multiroot", "arena", "show", "--json"]).stdout)
    assert [extent["kind"] for extent in arena["extents"]] == ["home-steady", "vm"]
    goes_on(cli)


@pytest.mark.parametrize(
    ("append", "code", "says", "last"),
    [
        (
            "rdinit=/no-such-init init=/no-such-init",
            5,
            "the new root's kernel panicked: 'Kernel panic - not syncing: ",
            "end Kernel panic",
        ),
        # It waits for somebody to type. Cli gives it more time than usual for everything.
        ("init=/usr/bin/cat", 4, "the new root stood still for 80 s; the last it said: ", ""),
    ],
)
def test_a_new_root_that_does_not_come_up_is_told_by_what_its_kernel_said(
    cli: Cli, append: str, code: int, says: str, last: str
) -> None:
    """Proves that a panic and a boot that stands still end a launch long before its time to join is over,
    with the kernel's last lines though no driver of ours was loaded there, what its CPUs did is kept with all
    that it said, and everything comes back."""
    before = cli.standing()
    done = cli.run("root", "launch", "--kernel", "6.12", "--append", append)
    *shown, error = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert says in error
    assert any(last in line for line in shown), done.stderr
    kept = error.partition("`cat ")[2].partition("`")[0]
    messages = cli.lab.run(["cat", kept]).stdout.splitlines()
    assert messages[0].startswith("Linux version 6.12")
    assert append in messages[1]
    # Behind all that it said comes what its CPUs did.
    heading = messages.index(HEADING)
    assert last in messages[heading - 1]
    assert cli.standing() == before


def test_after_launches_that_failed_the_next_one_joins(cli: Cli) -> None:
    """Proves that CPUs and memory of dead launches work: the next launch uses them."""
    cli.ok("root", "launch", "--kernel", "6.12")
    assert cli.lab.state.resets() == 0


def test_a_vm_goes_there_and_back_and_there_again(cli: Cli) -> None:
    """Proves that either root gives and takes: each handoff raises the epoch by one and copies no RAM. The
    VM has one row all the time, every verb finds it, and a console that is attached throughout shows each
    of its ticks once."""
    have_new_root(cli)
    with cli.started("vm", "console", "steady") as console:
        console.wait_for(b"T ")
        epochs = []
        for to in ("new", "old", "new", "old"):
            result = cli.data("handoff", "steady", "--to", to)
            assert isinstance(result, dict)
            assert result["ram_bytes_copied"] == 0
            epochs.append(result["epoch"])
            owner = root_number(cli, to)
            (row,) = cli.data("vm", "list")  # type: ignore[misc]
            assert (row["name"], row["state"], row["owner"]) == ("steady", "running", owner)
            shown = cli.data("vm", "show", "steady")
            assert isinstance(shown, dict)
            assert (shown["state"], shown["owner"], shown["epoch"]) == ("running", owner, epochs[-1])
            cli.refused(3, "already a VM steady", "vm", "run", "steady")
            console.wait_for(b"T ")
        output = console.output()
    assert epochs == list(range(epochs[0], epochs[0] + 4))
    seen = continuity(parse([(0, output)]).ticks)
    assert seen
    assert (seen.missing, seen.repeated) == ((), ())
    cli.refused(2, "no VM named 'nobody'", "handoff", "nobody", "--to", "old")


def test_several_vms_go_by_one_command_and_one_that_cannot_stays(cli: Cli) -> None:
    """Proves that all VMs of a root go by one command, in groups and in the order that was asked for; that
    those that a handoff does not concern stay; and that a VM that does not run keeps no other from going. One
    that was prepared before takes the VMM that waits; what nobody wants any more ends."""
    have_new_root(cli)
    for name in ("small", "tiny"):
        cli.ok("vm", "run", name, "--memory", "96M")
    assert cli.data("handoff", "prepare", "small", "tiny") == {"prepared": ["small", "tiny"]}
    (waits,) = vmms(cli, "small", "new")
    assert len(vmms(cli, "tiny", "new")) == 1
    assert set(owners(cli).values()) == {root_number(cli, "old")}
    cli.ok("handoff", "prepare", "tiny", "--undo")
    assert vmms(cli, "tiny", "new") == []
    moved = cli.data("handoff", "--all", "--group", "2", "--first", "tiny")
    assert isinstance(moved, list)
    assert sorted(each["name"] for each in moved) == ["small", "steady", "tiny"]
    assert {each["ram_bytes_copied"] for each in moved} == {0}
    assert set(owners(cli).values()) == {root_number(cli, "new")}
    assert vmms(cli, "small", "new") == [waits]
    moved = cli.data("handoff", "tiny", "steady", "--to", "old", "--order", "largest")
    assert [each["name"] for each in moved] == ["steady", "tiny"]  # type: ignore[attr-defined]
    old, new = root_number(cli, "old"), root_number(cli, "new")
    assert owners(cli) == {"small": new, "steady": old, "tiny": old}

    (vm,) = [vm for vm in cli.data("vm", "list") if vm["name"] == "tiny"]  # type: ignore[attr-defined]
    cli.lab.run(["kill", "-9", str(vm["pid"])])
    cli.fails(3, "1 of 2 VMs stay: tiny: tiny does not run", "handoff", "tiny", "steady")
    assert owners(cli) == {"small": new, "steady": new, "tiny": old}
    cli.ok("handoff", "--all", "--to", "old")
    for name in ("small", "tiny"):
        cli.ok("vm", "rm", "--force", name)
    assert cli.ok("handoff", "cancel") == "nothing is being handed over\n"
    goes_on(cli)


def vmms(cli: Cli, vm: str, root: str) -> list[str]:
    """The process ids of the VMMs in a root that have started for a VM."""
    found = cli.lab.run(["pgrep", "-f", f"qemu-system.*guest={vm}"], root=root).stdout
    return found.split()


def owners(cli: Cli) -> dict[str, int]:
    """The root of each VM."""
    vms: Any = cli.data("vm", "list")
    return {vm["name"]: vm["owner"] for vm in vms}


def test_a_running_new_root_keeps_its_cpus_and_its_coordinator(cli: Cli) -> None:
    """Proves the online veto, and that neither a second launch nor a coordinator by hand gets in between."""
    online = cli.lab.run(["sh", "-c", "echo 1 | tee /sys/devices/system/cpu/cpu3/online"])
    assert online.returncode != 0
    assert "resource busy" in online.stderr
    cli.refused(3, "already", "root", "launch", "--kernel", "6.12")
    by_hand = cli.lab.run(["multiroot", "kexec", "load", "6.12", "--carve", "256M"])
    assert by_hand.returncode == 3
    assert "coordinator" in by_hand.stderr
    assert cli.lab.run(["true"], root="new").returncode == 0


def test_a_new_root_that_dies_is_noticed_and_everything_comes_back(cli: Cli) -> None:
    """Proves that a panic in the new root ends nothing else: its peer sees it, a handoff to it is refused,
    its CPUs and memory come back and carry the next root, to which the same VM then goes."""
    cli.crash_new_root()
    cli.refused(5, "the new root is gone", "handoff", "steady")
    assert "released: CPUs 2-3" in cli.ok("root", "release")
    assert cli.lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout == "0-3\n"

    cli.ok("root", "launch", "--kernel", "6.12")
    cli.ok("handoff", "steady")
    (vm,) = [vm for vm in cli.data("vm", "list") if vm["state"] == "running"]  # type: ignore[attr-defined]
    assert (vm["name"], vm["owner"]) == ("steady", root_number(cli, "new"))
    assert cli.lab.state.resets() == 0


def test_an_agent_that_is_killed_finds_its_new_root_and_the_vm_in_it_again(cli: Cli) -> None:
    """Proves that the end of the old root's agent ends no root and no VM: its successor hands the VM back."""
    before = cli.standing()
    first = cli.lab.run(["pgrep", "-o", "-f", "/usr/bin/multirootd"]).stdout.strip()
    cli.lab.run(["kill", "-9", first])
    until = time.monotonic() + guests.BOOT_TIMEOUT
    while cli.run("root", "show", "new").returncode:
        assert time.monotonic() < until, "no agent, or it does not know its new root any more"
    assert cli.standing() == before
    cli.ok("handoff", "steady", "--to", "old")
    assert cli.lab.state.resets() == 0


def test_nothing_ends_a_root_with_a_vm_in_it_but_force_which_says_what_is_lost(cli: Cli) -> None:
    """Proves that an abort hands back a VM first, though no step of the update brought it to the new root;
    that a release and a stop by hand refuse and leave both roots and the VM as they are; that only --force
    loses the VM, and names it; that the name can be used again; and that to give back twice is harmless."""
    if cli.run("root", "show", "new").returncode:
        cli.ok("root", "launch", "--kernel", "6.12")
    cli.ok("handoff", "steady")
    assert shown(cli)["owners"] == {"steady": root_number(cli, "new")}
    cli.refused(3, "the new root owns steady", "root", "release")
    assert cli.lab.run(["multiroot", "kexec", "stop"]).returncode == 3
    assert given_back(cli, "update", "abort") == ([], False)
    (vm,) = cli.data("vm", "list")  # type: ignore[misc]
    assert (vm["name"], vm["state"], vm["owner"]) == ("steady", "running", root_number(cli, "old"))
    goes_on(cli)
    assert given_back(cli, "update", "abort") == ([], True)
    cli.refused(3, "no update is under way", "update", "resume")

    cli.ok("root", "launch", "--kernel", "6.12")
    cli.ok("handoff", "steady")
    assert given_back(cli, "root", "release", "--force") == (["steady"], False)
    assert (shown(cli)["state"], shown(cli)["lost"]) == ("idle", ["steady"])
    assert given_back(cli, "root", "release", "--force") == ([], True)
    assert cli.lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout == "0-3\n"
    (vm,) = cli.data("vm", "list")  # type: ignore[misc]
    assert (vm["name"], vm["state"]) == ("steady", "lost")
    cli.ok("vm", "forget", "steady")
    cli.ok("vm", "start", "steady")
    goes_on(cli)
    assert cli.lab.state.resets() == 0


def shown(cli: Cli) -> dict[str, Any]:
    """What `update show` says."""
    data = cli.data("update", "show")
    assert isinstance(data, dict)
    return data


def given_back(cli: Cli, *words: str) -> tuple[list[str], bool]:
    """The VMs that a command says it lost, and whether there was nothing to give back."""
    data = cli.data(*words)
    assert isinstance(data, dict)
    return data["lost"], data["idle"]


def goes_on(cli: Cli) -> None:
    """The VM ticks on in the old root."""
    with client.connect(cli.lab.agent_address, root="old") as old:
        seen = len(agents.ticks(old, "steady", 0, guests.BOOT_TIMEOUT).counter)
        agents.ticks(old, "steady", seen + 10, guests.BOOT_TIMEOUT)


def test_a_vm_whose_root_died_is_lost_and_its_name_is_free_again(cli: Cli) -> None:
    """Proves that a VM is told to be lost as soon as its root has panicked, by vm list, arena show and
    doctor; that its memory and name are free after that; and that the next VM of the name is handed over."""
    have_new_root(cli)
    cli.ok("handoff", "steady")
    owner = root_number(cli, "new")
    cli.refused(3, f"root {owner}, which owns it, lives", "vm", "forget", "steady")
    cli.crash_new_root()
    (row,) = cli.data("vm", "list")  # type: ignore[misc]
    assert (row["name"], row["state"], row["owner"]) == ("steady", "lost", owner)
    shown = json.loads(cli.lab.run(["multiroot", "arena", "show", "--json"]).stdout)["extents"]
    assert [(each["name"], each["state"]) for each in shown] == [(".home-steady", ""), ("steady", "lost")]
    looked = json.loads(cli.lab.run(["multiroot", "doctor", "--json"]).stdout)
    (found,) = [each for each in looked["checks"] if each["id"] == "arena"]
    assert "multiroot vm forget steady" in found["mend"]
    cli.refused(3, "already a VM steady (lost)", "vm", "run", "steady")
    assert cli.ok("vm", "rm", "--force", "steady") == "steady removed\n"
    assert cli.data("vm", "list") == []

    cli.ok("vm", "run", "steady", "--memory", "256M")
    cli.ok("root", "release")
    cli.ok("root", "launch", "--kernel", "6.12")
    with client.connect(cli.lab.agent_address, root="old") as old:
        agents.ticks(old, "steady", 10, guests.BOOT_TIMEOUT)
    cli.ok("handoff", "steady")
    (row,) = cli.data("vm", "list")  # type: ignore[misc]
    assert (row["state"], row["owner"]) == ("running", root_number(cli, "new"))
    assert cli.lab.state.resets() == 0


def have_new_root(cli: Cli) -> None:
    """An earlier test may have left one, or not."""
    if cli.peer_states() != ["ready"]:
        cli.ok("root", "launch", "--kernel", "6.12")


def root_number(cli: Cli, name: str) -> int:
    shown = cli.data("root", "show", name)
    assert isinstance(shown, dict)
    return int(shown["root"])
