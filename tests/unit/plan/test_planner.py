# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from multiroot.arch.x86 import LEDGER
from multiroot.errors import BadRequestError, ConflictError
from multiroot.kexec.x86.layout import check_carve, check_low_window
from multiroot.plan.inventory import Inventory
from multiroot.plan.iomem import Resource
from multiroot.plan.memory import Way
from multiroot.plan.planner import Plan, plan
from multiroot.plan.request import PlanConflictError, PlanRequestError, Request
from multiroot.ranges import Range, intersect, subtract
from multiroot.units import GIB, MIB

from .strategies import BLOCK, RAM, inventories, machine, requests

CARVE = Range(4 * GIB + 512 * MIB, GIB)


def check(inventory: Inventory, request: Request, made: Plan) -> None:
    """Everything that must hold for any plan, told from the inventory and not from the planner."""
    by_number = {cpu.number: cpu for cpu in inventory.cpus}
    chosen = {cpu.number for cpu in made.cpus}
    assert chosen
    for cpu in made.cpus:
        known = by_number[cpu.number]
        assert not known.is_boot
        assert known.owner in (0, inventory.root)
        assert known.hardware_id == cpu.hardware_id
        assert set(known.siblings) & set(by_number) <= chosen
    if request.cpus is not None:
        assert chosen == set(request.cpus)
    elif request.cpu_count is not None:
        assert len(chosen) == request.cpu_count
    check_carve(made.carve)
    assert made.carve.size >= request.needed
    assert request.carve_size in (None, made.carve.size)
    assert request.carve_base in (None, made.carve.base)
    check_memory(inventory, made)
    check_low_window(made.low)
    assert not made.low.overlaps(LEDGER)
    assert bool(made.pmem) == request.pmem
    assert not any(item.overlaps(made.carve) for item in made.pmem)
    assert made.shared == made.carve.base + 2 * MIB
    assert made.carve.base % made.alignment == 0


def check_memory(inventory: Inventory, made: Plan) -> None:
    assert intersect(inventory.firmware_ram, [made.carve]) == (made.carve,)
    if made.way is Way.RESERVED:
        assert not made.blocks
        for resource in inventory.iomem:
            assert resource.is_reserved or not resource.range.overlaps(made.carve)
            assert not any(child.range.overlaps(made.carve) for child in resource.children)
        return
    blocks = [block for block in inventory.blocks if block.number in made.blocks]
    assert not subtract([made.carve], [block.range for block in blocks])
    assert all(made.carve.contains(block.range) for block in blocks)
    assert all(not block.online or block.zone == "Movable" for block in blocks)
    inner = [child.range for resource in inventory.iomem for child in resource.children]
    assert not any(child.overlaps(made.carve) for child in inner)


def attempt(inventory: Inventory, request: Request) -> Plan | PlanRequestError | PlanConflictError:
    try:
        return plan(inventory, request)
    except (PlanRequestError, PlanConflictError) as error:
        return error


@settings(max_examples=400, deadline=None)
@given(inventories(), requests())
def test_a_plan_that_holds_or_a_suggestion_that_works(inventory: Inventory, request: Request) -> None:
    made = attempt(inventory, request)
    if isinstance(made, Plan):
        event(f"planned {made.way}")
        check(inventory, request, made)
        assert Plan.from_json(made.to_json()) == made
    elif made.nearest:
        event("suggested")
        assert made.nearest != request
        assert made.nearest.describe() in made.hint
        check(inventory, made.nearest, plan(inventory, made.nearest))
    else:
        event("refused")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"cpus": 1}', '{"cpus": [{"number": 1}]}', machine().__repr__()]
)
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(BadRequestError, match="not a plan"):
        Plan.from_json(text)


def test_the_planners_choice() -> None:
    made = plan(machine(), Request())
    assert [cpu.number for cpu in made.cpus] == [2, 3]
    assert (made.carve, made.way, made.alignment) == (CARVE, Way.RESERVED, 2 * MIB)
    assert made.low == Range(0x20000, 0x20000)
    assert made.pmem == (Range(4 * GIB, 512 * MIB),)


@pytest.mark.parametrize(
    ("left_over", "movable", "carve_"),
    [
        (124, 16, Range(6 * GIB, GIB)),  # half of it
        (124, 3, Range(8 * GIB - 3 * BLOCK, 2 * BLOCK)),  # enough, though more than half
        (124, 1, Range(8 * GIB - BLOCK, BLOCK)),
        (140, 1, Range(CARVE.base, 140 * MIB)),
        (140, 0, Range(CARVE.base, 140 * MIB)),
        (256, 16, Range(CARVE.base, 256 * MIB)),
    ],
)
def test_what_is_too_small_for_a_root_is_the_last_choice(left_over: int, movable: int, carve_: Range) -> None:
    """Below its first block, a root that has taken over has memory that can't be added to it."""
    inventory = machine(movable=movable)
    rest = Resource(Range.between(CARVE.base + left_over * MIB, CARVE.end), RAM)
    made = plan(replace(inventory, iomem=(*inventory.iomem, rest)), Request(needed=100 * MIB))
    assert made.carve == carve_


def test_large_carves_are_aligned_to_1_gib_where_they_can_be() -> None:
    made = plan(machine(reserved=False, movable=20), Request(carve_size=GIB))
    assert (made.carve, made.way, made.alignment) == (Range(6 * GIB, GIB), Way.BLOCKS, GIB)
    assert made.blocks == tuple(range(48, 56))


def test_offline_cores_are_taken_first() -> None:
    inventory = machine(cores=6)
    cpus = tuple(replace(cpu, online=cpu.number != 2) for cpu in inventory.cpus)
    made = plan(replace(inventory, cpus=cpus), Request(cpu_count=2))
    assert [cpu.number for cpu in made.cpus] == [2, 5]


def refused(
    inventory: Inventory, request: Request, message: str, nearest: Request | None, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        plan(inventory, request)
    error = caught.value
    assert isinstance(error, PlanRequestError | PlanConflictError)
    assert message in error.message
    assert error.nearest == nearest
    if nearest:
        assert nearest.describe() in error.hint


def test_cpus_that_can_not_go() -> None:
    smt = machine(threads=2)
    one = replace(machine(), cpus=machine().cpus[:1])
    cpus = machine().cpus
    owned = replace(machine(), cpus=(*cpus[:2], replace(cpus[2], owner=2), cpus[3]))
    blind = replace(machine(), cpus=(*cpus[:3], replace(cpus[3], hardware_id=None, online=False)))
    refused(machine(), Request(cpus=(0, 3)), "CPU 0 is the boot CPU", Request(cpus=(3,)), ConflictError)
    refused(
        smt,
        Request(cpus=(2, 4, 5)),
        "CPU 2 shares a core with CPU 3",
        Request(cpus=(2, 3, 4, 5)),
        ConflictError,
    )
    refused(
        smt, Request(cpus=(1, 2, 3)), "CPU 1 shares a core with CPU 0", Request(cpus=(2, 3)), ConflictError
    )
    refused(owned, Request(cpus=(2, 3)), "CPU 2 belongs to root 2", Request(cpus=(3,)), ConflictError)
    refused(blind, Request(cpus=(3,)), "APIC id unknown", Request(), ConflictError)
    refused(machine(), Request(cpus=(3, 9)), "there is no CPU 9", Request(cpus=(3,)), BadRequestError)
    refused(machine(), Request(cpus=()), "no CPU requested", Request(), BadRequestError)
    refused(machine(), Request(cpu_count=9), "9 CPUs can not leave", Request(cpu_count=3), ConflictError)
    refused(smt, Request(cpu_count=3), "3 CPUs can not leave", Request(cpu_count=2), ConflictError)
    refused(machine(), Request(cpu_count=0), "no CPU requested", Request(), BadRequestError)
    refused(one, Request(), "no CPU can leave", None, ConflictError)


def carve(base: int, size: int) -> Request:
    return Request(carve_size=size, carve_base=base)


@pytest.mark.parametrize(
    ("request_", "message", "nearest", "kind"),
    [
        (carve(16 * MIB, GIB), "overlaps 'Kernel code' at 0x1000000-", carve(CARVE.base, GIB), ConflictError),
        (carve(4 * GIB, GIB), "overlaps 'namespace0.0'", carve(CARVE.base, GIB), ConflictError),
        (carve(6 * GIB, GIB), "overlaps memory block 48", carve(CARVE.base, GIB), ConflictError),
        (carve(64 * GIB, GIB), "is not all RAM", carve(CARVE.base, GIB), ConflictError),
        (carve(CARVE.base + MIB, BLOCK), "not aligned", carve(CARVE.base + 2 * MIB, BLOCK), BadRequestError),
        (carve(CARVE.base, MIB), "too small, 128 MiB are needed", carve(CARVE.base, BLOCK), BadRequestError),
        (carve(CARVE.end - BLOCK, GIB), "overlaps memory block", carve(CARVE.base, GIB), ConflictError),
        (Request(carve_size=8 * GIB), "largest free piece has 1 GiB", Request(carve_size=GIB), ConflictError),
        (Request(carve_size=256 * MIB + 1), "not aligned", Request(carve_size=258 * MIB), BadRequestError),
        (Request(carve_base=CARVE.base), "without a size", Request(), BadRequestError),
        (Request(low=Range(0x20000, 0x4000)), "too small", Request(), BadRequestError),
        (Request(low=Range(0x10000, 0x20000)), "overlaps the ledger", Request(), ConflictError),
    ],
)  # fmt: skip
def test_memory_that_can_not_be_had(
    request_: Request, message: str, nearest: Request, kind: type[Exception]
) -> None:
    refused(machine(), request_, message, nearest, kind)


def test_memory_blocks_that_can_not_go() -> None:
    inventory = machine(reserved=False, movable=4)
    last = 8 * GIB - 4 * BLOCK
    made = plan(inventory, carve(last, 4 * BLOCK))
    assert (made.way, made.blocks) == (Way.BLOCKS, (60, 61, 62, 63))
    refused(
        inventory,
        carve(last - BLOCK, 4 * BLOCK),
        "overlaps memory block 59 at 0x1d8000000-0x1dfffffff, which is in zone Normal",
        carve(last, 4 * BLOCK),
        ConflictError,
    )
    refused(
        inventory,
        carve(last, 130 * MIB),
        "not made of whole memory blocks of 128 MiB",
        Request(carve_size=2 * BLOCK),
        ConflictError,
    )
    refused(
        inventory,
        Request(carve_size=5 * BLOCK),
        "largest free piece has 512 MiB, in blocks of 128 MiB",
        Request(carve_size=4 * BLOCK),
        ConflictError,
    )


def test_a_kernel_in_movable_memory_stays_there() -> None:
    inventory = machine(reserved=False, movable=8)
    image = replace(inventory.iomem[2].children[0], range=Range(8 * GIB - 3 * BLOCK - 4096, 8192))
    iomem = (*inventory.iomem[:-1], replace(inventory.iomem[-1], children=(image,)))
    made = plan(replace(inventory, iomem=iomem), Request(carve_size=4 * BLOCK))
    assert made.carve == Range(7 * GIB, 4 * BLOCK)
    with pytest.raises(PlanConflictError, match="overlaps 'Kernel code'"):
        plan(replace(inventory, iomem=iomem), carve(8 * GIB - 4 * BLOCK, 4 * BLOCK))


def test_no_room_at_all() -> None:
    refused(
        machine(reserved=False),
        Request(),
        "no room for a carve of 128 MiB: no memory is free",
        None,
        ConflictError,
    )
    refused(machine(reserved=False), Request(carve_size=GIB), "no memory is free", None, ConflictError)


def test_no_pmem() -> None:
    refused(
        machine(pmem=False),
        Request(carve_size=GIB),
        "there is no persistent memory",
        Request(carve_size=GIB, pmem=False),
        ConflictError,
    )


def test_a_carve_that_a_root_has_is_not_free() -> None:
    """multiroot.ko requests the region, so it shows up inside of what is reserved."""
    inventory = machine()
    taken = tuple(
        replace(
            item, children=(replace(item, name="multiroot carve", range=Range(item.range.base, 512 * MIB)),)
        )
        if item.range == CARVE
        else item
        for item in inventory.iomem
    )
    inventory = replace(inventory, iomem=taken)
    assert plan(inventory, Request()).carve == Range(CARVE.base + 512 * MIB, 512 * MIB)
    refused(
        inventory,
        carve(CARVE.base, 256 * MIB),
        "overlaps 'multiroot carve'",
        carve(CARVE.base + 512 * MIB, 256 * MIB),
        ConflictError,
    )


def test_a_request_wrong_in_every_part_is_mended_in_every_part() -> None:
    request = Request(cpus=(0, 1), carve_size=GIB, carve_base=MIB, low=Range(0, 4096))
    with pytest.raises(PlanConflictError) as caught:
        plan(machine(threads=2, pmem=False), request)
    assert caught.value.nearest == Request(carve_size=GIB, carve_base=CARVE.base, pmem=False)


@given(st.integers(0, 6))
def test_low_windows_avoid_what_is_there(page: int) -> None:
    inventory = machine()
    taken = Range(0x20000 + page * 0x10000, 0x1000)
    iomem = tuple(
        replace(item, children=(replace(item, name="taken", range=taken, children=()),))
        if item.range.contains(taken)
        else item
        for item in inventory.iomem
    )
    low = plan(replace(inventory, iomem=iomem), Request()).low
    assert not low.overlaps(taken)
