# SPDX-License-Identifier: GPL-2.0-or-later
"""No root that owns a VM is ended, unless it is dead already or someone insists."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import cast

import pytest
from arena.conftest import blank_file
from plan.strategies import machine

from multiroot.arena import layout
from multiroot.arena.arena import Arena, format_arena
from multiroot.arena.layout import Owner
from multiroot.device.handle import Device
from multiroot.device.uapi import CpuState
from multiroot.errors import BadRequestError
from multiroot.launch import guard, load, retire
from multiroot.launch.guard import OwnsVmsError
from multiroot.plan.planner import Plan, plan
from multiroot.plan.request import Request
from multiroot.units import MIB

from .fakes import CHILD, ME, FakeDevice

PLAN: Plan = plan(machine(), Request(needed=128 * MIB))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The device that the machine's arena lies on; blank."""
    made = blank_file(tmp_path / "arena")

    def find(root: int, root_is_dead: object = None) -> Arena | None:
        return guard.open_if_made(made, root, *([root_is_dead] if root_is_dead else []))  # type: ignore[list-item]

    monkeypatch.setattr(guard, "find_arena", find)
    return made


def own(path: Path, name: str, root: int) -> None:
    """A VM that root number `root` owns."""
    if layout.is_blank(path.read_bytes()[: layout.METADATA_SIZE]):
        format_arena(path)
    arena = Arena(path, root)
    arena.allocate(name, 2 * MIB, 0)
    arena.close()


def running() -> FakeDevice:
    """The device of a root whose new root runs."""
    device = FakeDevice()
    device.claim()
    load.carve(cast(Device, device), PLAN)
    load.grant(cast(Device, device), PLAN)
    device.start(PLAN.cpus[0].number, timeout_ms=1)
    return device


def end(device: FakeDevice, *, force: bool = False) -> tuple[str, ...]:
    return load.reclaim(cast(Device, device), PLAN, force=force, hint="say --force")


def lives(device: FakeDevice) -> bool:
    return CpuState.STARTED in device.cpus.values()


def test_a_root_that_owns_vms_is_not_ended_and_they_are_named(path: Path) -> None:
    own(path, "web", CHILD)
    own(path, "ours", ME)
    own(path, "db", CHILD)
    device = running()
    before = dict(device.cpus)
    with pytest.raises(OwnsVmsError, match=r"root 2 owns VMs web, db \(say --force\)"):
        end(device)
    assert device.cpus == before
    assert end(device, force=True) == ("web", "db")
    assert not lives(device)
    assert end(device, force=True) == (), "nothing is left to lose"


def test_a_root_without_a_vm_is_ended(path: Path) -> None:
    own(path, "ours", ME)
    own(path, ".tables", CHILD)
    device = running()
    assert end(device) == ()
    assert not lives(device)


def test_a_canary_holds_nobody_and_is_nobodys_loss(path: Path) -> None:
    own(path, layout.CANARY, CHILD)
    device = running()
    assert end(device) == ()
    assert not lives(device)
    own(path, "web", CHILD)
    device = running()
    with pytest.raises(OwnsVmsError, match=r"root 2 owns VM web "):
        end(device)
    assert end(device, force=True) == ("web",)


def test_a_vm_that_was_handed_back_holds_nobody(path: Path) -> None:
    own(path, "web", CHILD)
    arena = Arena(path, ME)
    arena.take("web", arena.find("web").owner, ME)
    arena.close()
    assert end(running()) == ()


def test_a_root_that_is_dead_is_ended_and_its_vms_are_named(path: Path) -> None:
    own(path, "web", CHILD)
    device = running()
    device.ended.add(CHILD)
    assert end(device) == ("web",)
    assert not lives(device)


def test_a_dead_root_that_held_the_table_does_not_stop_its_end(path: Path) -> None:
    own(path, "web", CHILD)
    arena = Arena(path, CHILD)
    arena.memory.store(layout.LOCK_OFFSET, (CHILD << 24 | 4711) << 24)
    arena.close()
    device = running()
    device.ended.add(CHILD)
    assert end(device) == ("web",)


@pytest.mark.parametrize("blank", [True, False])
def test_a_machine_without_an_arena_has_no_vms(
    path: Path, monkeypatch: pytest.MonkeyPatch, blank: bool
) -> None:
    if not blank:
        monkeypatch.setattr(guard, "find_arena", lambda root, dead=None: None)
    assert end(running()) == ()


def test_this_machine_has_no_arena_that_a_test_could_lose() -> None:
    assert guard.find_arena(ME) is None


def test_a_broken_arena_may_hold_any_vm(path: Path) -> None:
    own(path, "web", CHILD)
    with path.open("r+b") as file:
        file.write(b"\xff" * 0x2000)
    device = running()
    with pytest.raises(OwnsVmsError, match="nobody can tell whether root 2 owns VMs: no valid arena"):
        end(device)
    assert lives(device)
    (lost,) = end(device, force=True)
    assert lost.startswith("unknown, for the arena can not be read")
    assert not lives(device)


def test_no_vm_is_started_while_its_root_is_ended(path: Path) -> None:
    """Allocating needs the table, which is held until the last CPU is back."""
    format_arena(path)
    device = running()
    late: list[bool] = []
    allocated = threading.Event()
    reclaim = device.reclaim

    def allocate() -> None:
        own(path, "late", CHILD)
        allocated.set()

    thread = threading.Thread(target=allocate)

    def reclaim_while_someone_allocates(number: int) -> object:
        if not thread.is_alive():
            thread.start()
        late.append(allocated.wait(0.05))
        return reclaim(number)

    device.reclaim = reclaim_while_someone_allocates  # type: ignore[assignment, method-assign]
    assert end(device) == ()
    assert late == [False] * len(PLAN.cpus)
    thread.join()
    assert allocated.is_set()


@pytest.mark.parametrize("last_step", [retire.end_processes, retire.end_kernel])
def test_this_root_does_not_end_with_a_vm(
    path: Path, monkeypatch: pytest.MonkeyPatch, last_step: object
) -> None:
    monkeypatch.setattr(retire, "processes", lambda: pytest.fail("a process was about to be ended"))
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("the kernel was about to be ended"))
    own(path, "web", ME)
    with pytest.raises(OwnsVmsError, match="this root owns VM web"):
        last_step(ME)  # type: ignore[operator]
    with path.open("r+b") as file:
        file.write(b"\xff" * 0x2000)
    with pytest.raises(OwnsVmsError, match="nobody can tell whether this root owns VMs"):
        last_step(ME)  # type: ignore[operator]


def test_this_root_may_end_when_its_vms_are_elsewhere(path: Path) -> None:
    own(path, "web", CHILD)
    guard.check_own_end(ME)


def test_an_owner_word_of_nobody_is_no_vm(path: Path) -> None:
    own(path, "web", CHILD)
    arena = Arena(path, CHILD)
    word = arena.owner_word("web")
    word.drop(word.read())
    assert word.read() == Owner(0, 1)
    arena.close()
    assert end(running()) == ()


def test_what_is_no_arena_is_said(path: Path) -> None:
    path.unlink()
    with pytest.raises(OwnsVmsError, match="cannot open the arena"):
        end(running())
    with pytest.raises(BadRequestError):
        Arena(path, ME)
