# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands as a user runs them, against this process as their agent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from kexec.x86.bzimage import BzImage
from vm.cli_agent import REPO, Done, Run

from multiroot.arena.arena import Arena
from multiroot.cli.program import cli
from multiroot.units import MIB
from multiroot.vm.definition import VmDefinition
from multiroot.vm.home import Home
from multiroot.vm.manager import VmManager
from multiroot.vm.stream import wait_for_ticks


@pytest.fixture
def arena_size() -> int:
    """With room for as much memory as VMs have untold."""
    return 512 * MIB


async def test_life_of_a_vm(multiroot: Run, manager: VmManager) -> None:
    started = await multiroot("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    assert started == Done(0, "vm0 runs in root 1, epoch 1\n", "")
    listed = json.loads((await multiroot("vm", "list", "--json")).out)
    assert [(each["name"], each["state"], each["ram_bytes"]) for each in listed] == [
        ("vm0", "running", 32 * MIB)
    ]
    table = await multiroot("vm", "list")
    assert "vm0" in table.out
    assert "32 MiB" in table.out
    shown = json.loads((await multiroot("vm", "show", "vm0", "--json")).out)
    assert shown == listed[0]
    told = (await multiroot("vm", "show", "vm0")).out
    assert "52:54:00" in told
    assert re.search(r"ram_bytes +32 MiB", told)
    assert re.search(r"guest +tiny", told)
    assert await multiroot("vm", "pause", "vm0") == Done(0, "vm0 paused\n", "")
    assert await multiroot("vm", "resume", "vm0") == Done(0, "vm0 goes on\n", "")
    assert await multiroot("vm", "resume", "vm0") == Done(0, "vm0 runs already\n", "")
    assert await multiroot("vm", "reboot", "vm0") == Done(0, "vm0 rebooted\n", "")
    for _ in range(2):
        assert await multiroot("vm", "stop", "vm0") == Done(0, "vm0 stopped\n", "")
    (stopped,) = json.loads((await multiroot("vm", "list", "--json")).out)
    gone = {"state": "stopped", "owner": None, "epoch": None, "pid": 0, "extents": []}
    assert stopped == {**shown, **gone}
    assert re.search(r"vm0 +stopped +- +- +32 MiB +1 +q35", (await multiroot("vm", "list")).out)
    assert await multiroot("vm", "edit", "vm0", "--cpus", "2") == Done(0, "vm0 is changed: cpus\n", "")
    assert json.loads((await multiroot("vm", "show", "vm0", "--json")).out) == {**stopped, "cpus": 2}
    assert await multiroot("vm", "edit", "vm0", "--cpus", "2") == Done(0, "nothing was changed\n", "")
    assert (await multiroot("vm", "start", "vm0")).out == "vm0 runs in root 1, epoch 3\n"
    refused = await multiroot("vm", "rm", "vm0")
    hint = "power it off and remove it: multiroot vm rm vm0 --force"
    assert refused == Done(3, "", f"multiroot: vm0 is running ({hint})\n")
    assert await multiroot(*hint.partition(": multiroot ")[2].split()) == Done(0, "vm0 removed\n", "")
    assert (await multiroot("vm", "rm", "vm0")).code == 2
    assert json.loads((await multiroot("vm", "list", "--json")).out) == []


async def test_names_are_completed_those_of_stopped_vms_too(
    multiroot: Run, manager: VmManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("web", "worker", "db"):
        manager.homes.make(Home(VmDefinition(name).checked()))
    monkeypatch.setenv("MULTIROOT_AGENT", f"unix:{tmp_path}/agent")
    complete = ShellComplete(cli, {}, "multiroot", "_MULTIROOT_COMPLETE").get_completions
    for verb in ("start", "edit", "rm"):
        found = await asyncio.to_thread(complete, ["vm", verb], "w")
        assert [(item.value, item.help) for item in found] == [("web", "stopped"), ("worker", "stopped")]
    monkeypatch.setenv("MULTIROOT_AGENT", f"unix:{tmp_path}/nobody")
    assert await asyncio.to_thread(complete, ["vm", "start"], "w") == []


async def test_user_data_comes_from_a_file_and_is_shown(multiroot: Run, tmp_path: Path) -> None:
    words = tmp_path / "user-data"
    words.write_text('#cloud-config\nhostname: "w\u00e9b"\n')
    assert (await multiroot("vm", "define", "web", "--user-data", words)).code == 0
    path = tmp_path / "web.toml"
    path.write_text((await multiroot("vm", "show", "web", "--toml")).out)
    assert (await multiroot("vm", "rm", "web")).code == 0
    assert await multiroot("vm", "define", "--file", path) == Done(0, "web is defined\n", "")
    assert json.loads((await multiroot("vm", "show", "web", "--json")).out)["user_data"] == words.read_text()
    words.write_text("#cloud-config\na: [\n")
    refused = await multiroot("vm", "edit", "web", "--user-data", words)
    assert (refused.code, f"{words}: user-data is not valid YAML: " in refused.err) == (2, True)
    assert "in line 2: 'a: ['" in refused.err
    assert refused.err.count("\n") == 1


async def test_a_kernel_comes_from_a_file_and_the_machine_keeps_it(
    multiroot: Run, manager: VmManager, tmp_path: Path
) -> None:
    kernel, initrd = tmp_path / "bzImage", tmp_path / "initrd"
    kernel.write_bytes(BzImage(init_size=8 * MIB, pref_address=2 * MIB, payload=bytes(300_000)).build())
    initrd.write_bytes(bytes(100_000))
    words = ("--memory", "32M", "--kernel", kernel, "--initrd", initrd)
    assert (await multiroot("vm", "run", "own", *words)).code == 0
    shown = json.loads((await multiroot("vm", "show", "own", "--json")).out)
    digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in (kernel, initrd)]
    assert [shown["kernel"], shown["initrd"]] == [f"sha256:{digest}" for digest in digests]
    path = tmp_path / "own.toml"
    path.write_text((await multiroot("vm", "show", "own", "--toml")).out)
    # The machine has them already.
    manager.host.files.receive = lambda name, size: pytest.fail("sent twice")  # type: ignore[method-assign]
    for same in (("--file", path), words):
        assert (await multiroot("vm", "define", "again", *same)).code == 0
        assert json.loads((await multiroot("vm", "show", "again", "--json")).out)["kernel"] == shown["kernel"]
        assert (await multiroot("vm", "rm", "again")).code == 0
    assert (await multiroot("vm", "rm", "own", "--force")).code == 0
    assert manager.host.arena.entries() == []
    gone = await multiroot("vm", "run", "--file", path)
    assert (gone.code, "this machine does not have the file sha256:" in gone.err) == (2, True)
    del manager.host.files.receive
    path.write_text(f'name = "own"\nram_bytes = "32M"\nkernel = "{kernel}"\n')
    assert (await multiroot("vm", "define", "--file", path)).code == 0
    other = tmp_path / "other"
    other.write_bytes(BzImage(init_size=8 * MIB, pref_address=2 * MIB, release="7.0.0").build())
    assert (await multiroot("vm", "edit", "own", "--kernel", other)).code == 0
    assert (await multiroot("vm", "edit", "own", "--kernel", "")).code == 0
    assert len(manager.host.arena.entries()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kernel", "DIR/absent"), "cannot read DIR/absent: No such file"),
        (("--kernel", "DIR/tree"), "DIR/tree is a folder (give the file in it)"),
        (("--kernel", "DIR/built"), "(the kernel in it is DIR/built/arch/x86/boot/bzImage)"),
        (("--kernel", "DIR/text"), "DIR/text: this is no kernel that a VM starts: it is not a bzImage"),
        (("--kernel", "DIR/empty"), "DIR/empty: the file is empty"),
        (("--kernel", "/dev/zero"), "/dev/zero is no regular file"),
        (("--initrd", "DIR/text"), "an initrd is given without its kernel"),
        (("--kernel", "DIR/kernel", "--initrd", "DIR/huge"), "DIR/huge: the file has 2 GiB"),
        (("--kernel", "DIR/large"), "the kernel does not come up in 256 MiB"),
        (("--kernel", "DIR/kernel", "--memory", "1G", "--initrd", "DIR/large-one"), "cannot keep the file"),
        (
            ("--kernel", "DIR/kernel", "--firmware", "seabios", "--disk", "pmem:0x1c0000000"),
            "seabios starts what is on the disk",
        ),
    ],
)
async def test_files_that_no_vm_starts_from_change_nothing(
    multiroot: Run, manager: VmManager, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    built = tmp_path / "built/arch/x86/boot/bzImage"
    built.parent.mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    for path in (built, tmp_path / "kernel"):
        path.write_bytes(BzImage(init_size=8 * MIB, pref_address=2 * MIB).build())
    (tmp_path / "large").write_bytes(BzImage(init_size=300 * MIB).build())
    (tmp_path / "text").write_text("a text")
    (tmp_path / "empty").touch()
    for name, size in (("huge", 2 << 30), ("large-one", 512 * MIB)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    refused = await multiroot("vm", "run", "own", *(word.replace("DIR", str(tmp_path)) for word in words))
    assert says.replace("DIR", str(tmp_path)) in refused.err
    assert (refused.code, refused.err.count("\n")) == (3 if "keep" in says else 2, 1)
    assert json.loads((await multiroot("vm", "list", "--json")).out) == []
    assert manager.host.arena.entries() == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("vm", "show", "vm9"), 2, "no VM named 'vm9'"),
        (("vm", "stop", "vm9"), 2, "no VM named 'vm9'"),
        (("vm", "console", "vm9"), 2, "no VM named 'vm9'"),
        (("vm", "run", "vm9", "--memory", "33M"), 2, "33 MiB is not a multiple of 2 MiB"),
        (("vm", "run", "vm9", "--memory", "lots"), 2, "not a size: 'lots'"),
        (
            ("vm", "run", "vm9", "--memory", "1G", "--guest", "tiny"),
            2,
            "1 GiB of memory is more than the arena has",
        ),
        (("vm", "run", "vm9", "--machine", "pc"), 2, "no machine called 'pc'"),
        (("vm", "run", "vm9", "--guest", "none"), 2, "no guest image 'none'"),
        (("vm", "list", "--root", "third"), 2, "not a root"),
    ],
)
async def test_refusals_are_one_line(multiroot: Run, words: tuple[str, ...], code: int, message: str) -> None:
    done = await multiroot(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"multiroot: {message}")
    assert done.err.count("\n") == 1


async def test_duplicate(multiroot: Run) -> None:
    words = ("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    assert (await multiroot(*words)).code == 0
    again = await multiroot(*words)
    assert again.code == 3
    assert "already a VM vm0" in again.err


async def test_a_vm_comes_again_from_what_was_shown(multiroot: Run, tmp_path: Path) -> None:
    path = tmp_path / "vm0.toml"
    path.write_text('ram_bytes = "32M"\nguest = "tiny"\nappend = "a=\u00e9"\n')
    assert (await multiroot("vm", "run", "vm0", "--file", path)).out == "vm0 runs in root 1, epoch 1\n"
    first = json.loads((await multiroot("vm", "show", "vm0", "--json")).out)
    path.write_text((await multiroot("vm", "show", "vm0", "--toml")).out)
    assert (await multiroot("vm", "rm", "--force", "vm0")).code == 0
    assert (await multiroot("vm", "run", "--file", path)).code == 0
    again = json.loads((await multiroot("vm", "show", "vm0", "--json")).out)
    names = [field.name for field in fields(VmDefinition)]
    assert [again[name] for name in names] == [first[name] for name in names]
    assert (await multiroot("vm", "run", "vm1", "--file", path)).code == 0
    vms = json.loads((await multiroot("vm", "list", "--json")).out)
    assert len({vm["cards"][0]["mac"] for vm in vms}) == 2


async def test_what_is_no_file_changes_nothing(multiroot: Run, tmp_path: Path) -> None:
    path = tmp_path / "vm0.toml"
    path.write_text('name = "vm0"\nguest = "tiny"\nram_bytes = "32Q"\n')
    done = await multiroot("vm", "run", "--file", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"multiroot: {path}: ram_bytes: not a size: '32Q'")
    assert json.loads((await multiroot("vm", "list", "--json")).out) == []


async def test_console_without_following(multiroot: Run, manager: VmManager) -> None:
    await multiroot("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    await wait_for_ticks(manager.get("vm0"), 5)
    done = await multiroot("vm", "console", "vm0", "--no-follow")
    assert done.code == 0
    assert done.out.startswith("READY boot=0-1\n")


@pytest.mark.parametrize("words", [("--no-follow",), ("--history", "--no-follow")])
async def test_console_without_following_ends_where_nothing_was_said(
    multiroot: Run, set_faults: Callable[[str], Path], words: tuple[str, ...]
) -> None:
    set_faults("mute")
    await multiroot("vm", "run", "vm0", "--memory", "32M", "--guest", "tiny")
    async with asyncio.timeout(20):
        assert await multiroot("vm", "console", "vm0", *words) == Done(0, "", "")


async def test_handoff(multiroot: Run) -> None:
    done = await multiroot("handoff", "vm0")
    assert done.code == 0
    assert "70000 bytes of device state, 0 bytes of RAM copied, no vCPU ran for 42.5 ms" in done.out
    data = json.loads((await multiroot("handoff", "vm0", "--json")).out)
    assert (data["blackout_ms"], data["ram_bytes_copied"]) == (42.5, 0)


async def test_no_agent(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "multiroot.cli.main", "vm", "list",
        env={**os.environ, "MULTIROOT_AGENT": f"unix:{tmp_path}/nobody", "PYTHONPATH": str(REPO)},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 5
    assert b"does not answer" in err


async def test_a_vm_that_no_agent_knows_is_shown_by_what_the_arena_says(
    multiroot: Run, arena_path: Path
) -> None:
    arena = Arena(arena_path, 2)
    arena.allocate("db", 4 * MIB, 77)
    arena.close()
    (seen,) = json.loads((await multiroot("vm", "list", "--json")).out)
    assert (seen["name"], seen["state"], seen["owner"], seen["ram_bytes"]) == (
        "db",
        "unreachable",
        2,
        4 * MIB,
    )
    assert (seen["cpus"], seen["machine"], seen["cards"]) == (None, None, [])
    assert re.search(r"db +unreachable +2 +1 +4 MiB +- +- +-", (await multiroot("vm", "list")).out)
    refused = await multiroot("vm", "forget", "db")
    assert refused == Done(
        3,
        "",
        "multiroot: db is not lost: root 2, which owns it, lives (end it: multiroot vm stop db --force)\n",
    )
    assert "db" not in (await multiroot("vm", "list", "--root", "old")).out


async def test_arena_commands(multiroot: Run, arena_path: Path, tmp_path: Path) -> None:
    arena = Arena(arena_path, 2)
    arena.allocate("vm0", 4 * MIB, 77)
    arena.close()
    data = json.loads((await multiroot("arena", "show", "--device", arena_path, "--json")).out)
    assert data["extents"] == [
        {
            "name": "vm0",
            "kind": "vm",
            "offset": 2 * MIB,
            "size": 4 * MIB,
            "root": 2,
            "epoch": 1,
            "state": "owned",
            "definition": 77,
        }
    ]
    assert sum(gap["size"] for gap in data["free"]) == 506 * MIB
    assert "vm0" in (await multiroot("arena", "show", "--device", arena_path)).out
    refused = await multiroot("arena", "format", "--device", arena_path)
    assert refused.code == 3
    assert "not blank" in refused.err
    assert (await multiroot("arena", "format", "--device", arena_path, "--force")).code == 0
    assert (
        json.loads((await multiroot("arena", "show", "--device", arena_path, "--json")).out)["extents"] == []
    )
    absent = await multiroot("arena", "show", "--device", tmp_path / "absent")
    assert absent.code == 2
    assert "No such file" in absent.err
