# SPDX-License-Identifier: GPL-2.0-or-later
"""Handoffs of a VM with a kernel and an initrd of a user's, which the arena keeps."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from kexec.x86.bzimage import BzImage
from vm.test_vm_kept_files import send

from multiroot.errors import BadRequestError
from multiroot.units import MIB
from multiroot.vm import kept_files
from multiroot.vm.instance import Instance
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.vmm import VmmVersion

from .harness import SMALL, Root, assert_runs_only_in, hand

Roots = tuple[Root, Root]
KERNEL, INITRD = BzImage(init_size=8 * MIB, pref_address=2 * MIB).build(), bytes(5000)


async def start(root: Root) -> Instance:
    kernel, initrd = (send(root.host.files, content) for content in (KERNEL, INITRD))
    vm = await Lifecycle(root.manager).run(replace(SMALL, kernel=kernel, initrd=initrd))
    await root.ticks(20)
    return vm


def given(root: Root) -> list[bytes]:
    """What its QEMU was started with in this root."""
    process = root.manager.running("vm0").vmm.process
    assert process
    words = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    return [Path(words[words.index(option) + 1]).read_bytes() for option in ("-kernel", "-initrd")]


async def test_it_goes_there_and_back_and_starts_anew_where_it_is(roots: Roots) -> None:
    giver, taker = roots
    await start(giver)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)
    assert given(taker) == [KERNEL, INITRD]
    await hand(taker, giver)
    await assert_runs_only_in(giver, taker)
    await Lifecycle(giver.manager).stop("vm0", force=True)
    await Lifecycle(taker.manager).start("vm0")
    assert given(taker) == [KERNEL, INITRD]
    await Lifecycle(taker.manager).remove("vm0", force=True)
    assert taker.host.arena.entries() == []


async def test_one_that_is_expected_has_them_already(roots: Roots) -> None:
    giver, taker = roots
    vm = await start(giver)
    version = VmmVersion(vm.vmm.name, vm.vmm.version)
    await taker.taker.expect(vm.definition, [vm.entry.extent], vm.owner, version)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)
    assert given(taker) == [KERNEL, INITRD]


@pytest.mark.parametrize("place", [0, 4096 + 1000], ids=["gone", "damaged"])
async def test_a_taker_that_can_not_have_them_refuses_before_anything_stops(roots: Roots, place: int) -> None:
    giver, taker = roots
    vm = await start(giver)
    for entry in giver.host.arena.entries():
        if entry.name.startswith(kept_files.PREFIX):
            with giver.host.arena.mapped(entry.extent) as memory:
                memory[place] ^= 1
    words = "does not have the file" if place == 0 else "is damaged"
    with pytest.raises(BadRequestError, match=words):
        await hand(giver, taker)
    version = VmmVersion(vm.vmm.name, vm.vmm.version)
    with pytest.raises(BadRequestError, match=words):
        await taker.taker.expect(vm.definition, [vm.entry.extent], vm.owner, version)
    await assert_runs_only_in(giver, taker)
    assert await asyncio.to_thread(lambda: list(taker.host.run_dir.glob("*"))) == []
