# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab knows beside its agents: consoles and whose they are, resets, the image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from multiroot.lab.layout import Range
from multiroot.lab.watching import ConsoleFile, Consoles, LabLook
from multiroot.watch.facts import Facts, MemoryKind, RootFacts


def say(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.writelines(f"123 {line}\n" for line in lines)


def test_a_console_is_read_on_and_half_a_line_waits(tmp_path: Path) -> None:
    log = tmp_path / "console-old.log"
    console = ConsoleFile(log)
    assert console.read() == []
    say(log, "one", "two")
    assert console.read() == ["one", "two"]
    with log.open("a") as file:
        file.write("124 thr")
    assert console.read() == []
    with log.open("a") as file:
        file.write("ee\n")
    assert console.read() == ["three"]


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "console-old.log"
    say(log, *(f"line {number} {'x' * 90}" for number in range(5000)))
    lines = ConsoleFile(log).read()
    assert len(lines) < 1000
    assert lines[-1].startswith("line 4999")


def test_each_root_has_the_port_that_its_parent_has_not(tmp_path: Path) -> None:
    logs = {port: tmp_path / port for port in ("old", "new")}
    consoles = Consoles({port: ConsoleFile(log) for port, log in logs.items()})
    consoles.read({1: True})
    say(logs["old"], "first root")
    consoles.read({1: True})
    say(logs["new"], "second root")
    consoles.read({1: True, 2: True})
    say(logs["old"], "third root")
    consoles.read({1: False, 2: True, 3: True})
    facts = Facts(roots={str(number): RootFacts(number, console=["by its agent"]) for number in (1, 2, 3, 9)})
    consoles.add(facts)
    assert {number: root.console for number, root in facts.roots.items()} == {
        "1": ["first root"],
        "2": ["second root"],
        "3": ["third root"],
        "9": ["by its agent"],
    }


async def test_what_is_added_to_the_facts(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"the system")
    disk = SimpleNamespace(origin=Path("debian-13"))
    layout = SimpleNamespace(ram=1 << 30, image=Range(1 << 33, 10), disks=(Range(1 << 34, 20),))
    machine = SimpleNamespace(name="x", accelerator="tcg", cpus=4, image=image, layout=layout, disks=(disk,))
    lab = SimpleNamespace(folder=tmp_path, machine=machine, resets=lambda: 3)
    look = LabLook(cast(Any, lab))
    facts = Facts(roots={"1": RootFacts(1)})
    say(tmp_path / "console-old.log", "hello")
    (await look.look())(facts)
    assert (facts.machine.resets, facts.machine.accelerator, facts.machine.memory_bytes) == (
        3,
        "tcg",
        1 << 30,
    )
    assert facts.roots["1"].image_sha256 == hashlib.sha256(b"the system").hexdigest()
    assert facts.roots["1"].console == ["hello"]
    assert [(each.name, each.kind) for each in facts.memory.values()] == [
        ("system image", MemoryKind.IMAGE),
        ("debian-13", MemoryKind.IMAGE),
    ]


def test_a_second_child_has_the_port_of_the_first(tmp_path: Path) -> None:
    logs = {port: tmp_path / port for port in ("old", "new")}
    consoles = Consoles({port: ConsoleFile(log) for port, log in logs.items()})
    consoles.read({1: True, 2: True})
    say(logs["new"], "first child")
    consoles.read({1: True, 2: False, 3: True})
    say(logs["new"], "second child")
    say(logs["old"], "parent")
    consoles.read({1: True, 2: False, 3: True})
    facts = Facts(roots={str(number): RootFacts(number) for number in (1, 2, 3)})
    consoles.add(facts)
    assert [root.console for root in facts.roots.values()] == [
        ["parent"],
        [],
        ["first child", "second child"],
    ]
