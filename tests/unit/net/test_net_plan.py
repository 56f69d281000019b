# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.net.addresses import root_address
from multiroot.net.plan import (
    BRIDGE,
    LINKS,
    AddAddress,
    AddBridge,
    AddPort,
    BringUp,
    Link,
    Step,
    plan_network,
)


def take(links: list[Link], step: Step) -> list[Link]:
    """What the kernel would make of the step; fails where the kernel would."""
    named = {link.name: link for link in links}
    if isinstance(step, AddBridge):
        assert step.name not in named
        return [*links, Link(1 + max((link.index for link in links), default=0), step.name)]
    link = named[step.name]
    if isinstance(step, AddAddress):
        assert step.address not in link.addresses
        changed = replace(link, addresses=(*link.addresses, step.address))
    elif isinstance(step, AddPort):
        changed = replace(link, master=named[step.bridge].index)
    else:
        changed = replace(link, up=True)
    return [changed if other.name == link.name else other for other in links]


@st.composite
def machines(draw: st.DrawFn) -> list[Link]:
    """Any half-finished state of a root's network."""
    names = draw(st.sets(st.sampled_from([BRIDGE, *LINKS, "lo", "eth0", "mrtap0"])))
    indexes = {name: index for index, name in enumerate(sorted(names), 2)}
    masters = [0, indexes[BRIDGE]] if BRIDGE in names else [0]
    return [
        Link(
            index,
            name,
            0 if name == BRIDGE else draw(st.sampled_from(masters)),
            draw(st.booleans()),
            tuple(draw(st.lists(st.sampled_from(["10.77.0.3/16", "10.0.2.15/24"]), unique=True))),
        )
        for name, index in indexes.items()
    ]


@given(machines())
def test_any_state_ends_right_and_then_nothing_is_left_to_do(before: list[Link]) -> None:
    after = before
    for step in plan_network(before, root=3):
        after = take(after, step)
    named = {link.name: link for link in after}
    bridge = named[BRIDGE]
    assert bridge.up
    assert "10.77.0.3/16" in bridge.addresses
    for name in LINKS:
        if name in named:
            assert named[name].master == bridge.index
            assert named[name].up
    others = [link for link in before if link.name not in (BRIDGE, *LINKS)]
    assert [link for link in after if link.name not in (BRIDGE, *LINKS)] == others
    assert plan_network(after, root=3) == []


def test_from_nothing() -> None:
    assert plan_network([Link(1, "lo"), Link(4, "mrup0")], 2) == [
        AddBridge(BRIDGE),
        AddAddress(BRIDGE, "10.77.0.2/16"),
        AddPort("mrup0", BRIDGE),
        BringUp("mrup0"),
        BringUp(BRIDGE),
    ]


@pytest.mark.parametrize("root", [0, 255, -1])
def test_roots_without_address(root: int) -> None:
    with pytest.raises(BadRequestError, match="has no address"):
        root_address(root)
