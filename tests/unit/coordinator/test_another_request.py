# SPDX-License-Identifier: GPL-2.0-or-later
"""A request for another update than the one under way is refused, and never goes on with the wrong one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from plan.strategies import machine

from multiroot.cli.root import launch_request
from multiroot.coordinator.coordinator import Coordinator, Data, Undoing
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.requests import request_data
from multiroot.coordinator.states import LAUNCH, UPDATE, State
from multiroot.errors import BadRequestError, ConflictError
from multiroot.phases import Phases
from multiroot.plan.planner import plan
from multiroot.plan.request import Request
from multiroot.units import GIB, MIB, format_cpu_list, parse_cpu_list

NO_OPTIONS = {"initrd": "", "cpus": "", "carve": "", "append": "", "timeout": 0}


def wanted(kernel: str = "6.12", **options: str | int) -> Data:
    """The plan step's data for a command with these options."""
    given = {**NO_OPTIONS, **options}
    return {"request": request_data(launch_request(kernel=kernel, **given))}  # type: ignore[arg-type]


class Planning:
    """The plan step, with the real planner on a machine of the tests."""

    async def do(self, data: Mapping[str, Data]) -> Data:
        request = data["plan"]["request"]
        made = plan(
            machine(),
            Request(
                cpus=parse_cpu_list(request["cpus"]) or None,
                carve_size=request["carve_size"] or None,
                carve_base=request["carve_base"] or None,
            ),
        )
        cpus = format_cpu_list([cpu.number for cpu in made.cpus])
        return {"plan": made.to_json(), "cpus": cpus, "carve_size": made.carve.size}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        """Nothing was changed."""


class Counted:
    """Any other step. `done` counts how often it was carried out."""

    done = 0

    async def do(self, data: Mapping[str, Data]) -> Data:
        self.done += 1
        return {}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        """Nothing was changed."""


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return coordinator_in(tmp_path)


def coordinator_in(folder: Path) -> Coordinator:
    steps = {name: Counted() for name in (*LAUNCH, *UPDATE)}
    return Coordinator(Journal(folder / "journal", "boot"), {**steps, "plan": Planning()}, Phases("test"))


async def paste(coordinator: Coordinator, hint: str) -> list[State]:
    """Give each command of a hint, on its own, and return the states that they lead to."""
    reached = []
    for command in re.findall("`multiroot update ([^`]+)`", hint):
        word, *options = shlex.split(command)
        if word == "abort":
            await coordinator.abort()
        else:
            assert word == "resume"
            until = coordinator.way_on(options[1] if options else "")
            await coordinator.update({}, until)
        reached.append(coordinator.state)
    return reached


async def test_another_kernel_is_refused_and_nothing_changes(coordinator: Coordinator) -> None:
    await coordinator.update(wanted("6.12"), "load")
    before = coordinator.standing
    with pytest.raises(ConflictError) as refusal:
        await coordinator.update(wanted("7.x"), "join")
    assert refusal.value.message == "the update under way is one to kernel 6.12, not 7.x"
    assert coordinator.standing == before, "not even what is wanted"


@pytest.mark.parametrize("until", [name for name in [*LAUNCH, *UPDATE] if name != "retire"])
async def test_the_hint_of_a_refusal_works_when_pasted(coordinator: Coordinator, until: str) -> None:
    await coordinator.update(wanted("6.12"), until)
    with pytest.raises(ConflictError, match=r"one to kernel 6\.12, not 7\.x") as refusal:
        await coordinator.update(wanted("7.x"), "retire")
    # Going on to "retire" leads to the commit, and what is committed cannot be taken back.
    offered = refusal.value.hint
    assert "`multiroot update resume --until retire` goes on" in offered
    assert ("`multiroot update abort` takes everything back" in offered) == (until != "commit")
    forward, _, back = offered.partition("; ")
    if back:
        assert await paste(coordinator, back) == [State.IDLE]
        await coordinator.update(wanted("6.12"), until)
    assert await paste(coordinator, forward) == [State.COMMITTED]


async def test_the_hint_goes_on_to_what_was_wanted(coordinator: Coordinator, tmp_path: Path) -> None:
    class Broken(Counted):
        async def do(self, data: Mapping[str, Data]) -> Data:
            raise ConflictError("no luck")

    steps = {name: Counted() for name in (*LAUNCH, *UPDATE)}
    broken = Coordinator(
        Journal(tmp_path / "journal", "boot"),
        {**steps, "plan": Planning(), "handover": Broken()},
        Phases("test"),
    )
    with pytest.raises(ConflictError, match="no luck"):
        await broken.update(wanted("6.12"), "handover")
    again = coordinator_in(tmp_path)
    with pytest.raises(ConflictError, match=r"not 7\.x") as refusal:
        await again.update(wanted("7.x"), "join")
    assert refusal.value.hint.startswith("`multiroot update resume` goes on to handover; ")
    assert await paste(again, refusal.value.hint.partition(";")[0]) == [State.HANDED_OVER]


FIRST = {"initrd": "/a", "cpus": "2-3", "carve": "512M@0x120000000", "append": "quiet  debug"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"initrd": "/b"}, "with initrd /a, not /b"),
        ({"cpus": "1"}, "with CPUs 2-3, not 1"),
        ({"carve": "1G"}, "with a carve of 512 MiB, not 1 GiB"),
        ({"carve": "512M@0x140000000"}, "with a carve at 0x120000000, not 0x140000000"),
        ({"append": "loud"}, "with parameters 'quiet debug', not 'loud'"),
        (
            {"cpus": "1", "append": "loud"},
            "with CPUs 2-3, not 1, and with parameters 'quiet debug', not 'loud'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
async def test_what_differs_is_named(coordinator: Coordinator, options: dict[str, str], said: str) -> None:
    await coordinator.update(wanted(**FIRST), "load")
    with pytest.raises(ConflictError) as refusal:
        await coordinator.update(wanted(**options), "join")
    assert refusal.value.message == f"the update under way is one {said}"
    assert coordinator.state is State.LOADED


@pytest.mark.parametrize(
    ("options", "said"),
    [({"initrd": "/b"}, "without initrd /b"), ({"append": "loud"}, "without parameters 'loud'")],
)
async def test_what_the_first_request_left_out_differs(
    coordinator: Coordinator, options: dict[str, str], said: str
) -> None:
    await coordinator.update(wanted(), "load")
    with pytest.raises(ConflictError, match=f"the update under way is one {said}"):
        await coordinator.update(wanted(**options), "join")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timeout": 7},
        FIRST,
        {"cpus": "3,2"},
        {"carve": "512 MiB"},
        {"append": "quiet debug"},
    ],
    ids=lambda options: " ".join(options) or "nothing",
)
async def test_the_same_request_and_what_leaves_out_a_part_of_it_go_on(
    coordinator: Coordinator, options: dict[str, str | int]
) -> None:
    await coordinator.update(wanted(**FIRST), "load")
    assert await coordinator.update(wanted(**options), "join") is State.JOINED


async def test_what_the_planner_chose_may_be_named_later(coordinator: Coordinator) -> None:
    await coordinator.update(wanted(), "load")
    chosen = coordinator.data["plan"]
    carve = f"{chosen['carve_size']}"
    assert chosen["carve_size"] in range(MIB, 8 * GIB)
    assert await coordinator.update(wanted(cpus=chosen["cpus"], carve=carve), "join") is State.JOINED
    with pytest.raises(ConflictError, match=f"with CPUs {chosen['cpus']}, not 0-7"):
        await coordinator.update(wanted(cpus="0-7"), "handover")


async def test_a_root_that_was_launched_is_updated_to_if_it_is_the_one_named(
    coordinator: Coordinator,
) -> None:
    await coordinator.launch(wanted("6.12", **FIRST))
    with pytest.raises(ConflictError, match=r"one to kernel 6\.12, not 7\.x"):
        await coordinator.update(wanted("7.x"), "commit")
    assert coordinator.state is State.JOINED
    assert await coordinator.update(wanted("6.12"), "commit") is State.COMMITTED


async def test_a_restarted_agent_refuses_alike(coordinator: Coordinator, tmp_path: Path) -> None:
    await coordinator.update(wanted("6.12"), "join")
    again = coordinator_in(tmp_path)
    with pytest.raises(ConflictError, match=r"one to kernel 6\.12, not 7\.x"):
        await again.update(wanted("7.x"), "handover")
    assert await again.update({}, "handover") is State.HANDED_OVER, "as a resume asks"


async def test_after_an_abort_any_request_is_a_new_one(coordinator: Coordinator) -> None:
    await coordinator.update(wanted("6.12"), "load")
    await coordinator.abort()
    assert await coordinator.update(wanted("7.x"), "load") is State.LOADED
    assert coordinator.data["plan"]["request"]["kernel"] == "7.x"


async def test_cpus_that_are_no_list_are_a_bad_request(coordinator: Coordinator) -> None:
    await coordinator.update(wanted(), "load")
    with pytest.raises(BadRequestError, match="not a CPU list"):
        await coordinator.update(wanted(cpus="two"), "join")
    assert coordinator.state is State.LOADED
