# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.net.addresses import root_address
from multiroot.net.plan import (
    CONTROL_BRIDGE,
    CONTROL_LINKS,
    GUEST_BRIDGE,
    GUEST_LINKS,
    AddAddress,
    AddBridge,
    AddPort,
    BringUp,
    GiveToGuests,
    Link,
    Step,
    plan_control,
    plan_guests,
)

KINDS = [
    (plan_control, CONTROL_BRIDGE, CONTROL_LINKS, "10.77.0.3/24"),
    (plan_guests, GUEST_BRIDGE, GUEST_LINKS, "10.77.2.3/16"),
]


def take(links: list[Link], step: Step) -> list[Link]:
    """What the kernel would make of the step; fails where the kernel would."""
    named = {link.name: link for link in links}
    if isinstance(step, AddBridge):
        assert step.name not in named
        return [*links, Link(1 + max((link.index for link in links), default=0), step.name)]
    link = named[step.name]
    if isinstance(step, GiveToGuests):
        return [other for other in links if other is not link]
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
    """Any half-finished state of a namespace."""
    bridges = (CONTROL_BRIDGE, GUEST_BRIDGE)
    names = draw(st.sets(st.sampled_from([*bridges, *CONTROL_LINKS, *GUEST_LINKS, "lo", "eth0", "mrtap0"])))
    indexes = {name: index for index, name in enumerate(sorted(names), 2)}
    masters = [0, *(indexes[name] for name in bridges if name in names)]
    addresses = st.sampled_from(["10.77.0.3/24", "10.77.2.3/16", "10.0.2.15/24"])
    return [
        Link(
            index,
            name,
            0 if name in bridges else draw(st.sampled_from(masters)),
            draw(st.booleans()),
            tuple(draw(st.lists(addresses, unique=True))),
        )
        for name, index in indexes.items()
    ]


@pytest.mark.parametrize(("plan", "name", "ports", "address"), KINDS, ids=["control", "guests"])
@given(before=machines())
def test_any_state_ends_right_and_then_nothing_is_left_to_do(plan, name, ports, address, before) -> None:
    after = before
    for step in plan(before, root=3):
        after = take(after, step)
    named = {link.name: link for link in after}
    bridge = named[name]
    assert bridge.up
    assert address in bridge.addresses
    for port in ports:
        if port in named:
            assert named[port].master == bridge.index
            assert named[port].up
    ours = (name, *ports, *(GUEST_LINKS if plan is plan_control else ()))
    others = [link for link in before if link.name not in ours]
    assert [link for link in after if link.name not in (name, *ports)] == others
    assert plan(after, root=3) == []


@pytest.mark.parametrize("uplink", ["eth1", "52:54:00:75:70:00", "52:54:00:75:70:0A"])
def test_the_uplink_goes_to_the_guests_whatever_it_is_called(uplink: str) -> None:
    mac = uplink.lower() if ":" in uplink else "52:54:00:00:00:01"
    links = [Link(2, "eth0", mac="52:54:00:12:34:56"), Link(3, "eth1", mac=mac)]
    assert plan_control(links, 1, uplink)[0] == GiveToGuests("eth1")
    assert not [step for step in plan_control(links, 1) if isinstance(step, GiveToGuests)]
    # A bridge has the address of one of its ports.
    bridge = Link(9, GUEST_BRIDGE, mac=mac, up=True, addresses=("10.77.2.1/16",))
    port = replace(links[1], master=9, up=True)
    assert plan_guests([bridge, port], 1, uplink) == []
    there = plan_guests(links[1:], 1, uplink)
    assert AddPort("eth1", GUEST_BRIDGE) in there
    assert BringUp("eth1") in there
    assert AddPort("eth1", GUEST_BRIDGE) not in plan_guests(links[1:], 1)


def test_from_nothing() -> None:
    links = [Link(1, "lo"), Link(4, "mrctlup0"), Link(5, "mrup0")]
    assert plan_control(links, 2) == [
        GiveToGuests("mrup0"),
        AddBridge(CONTROL_BRIDGE),
        AddAddress(CONTROL_BRIDGE, "10.77.0.2/24"),
        AddPort("mrctlup0", CONTROL_BRIDGE),
        BringUp("mrctlup0"),
        BringUp(CONTROL_BRIDGE),
    ]
    assert plan_guests([Link(1, "lo"), Link(5, "mrup0")], 2) == [
        AddBridge(GUEST_BRIDGE),
        AddAddress(GUEST_BRIDGE, "10.77.2.2/16"),
        AddPort("mrup0", GUEST_BRIDGE),
        BringUp("mrup0"),
        BringUp(GUEST_BRIDGE),
    ]


@pytest.mark.parametrize("root", [0, 255, -1])
def test_roots_without_address(root: int) -> None:
    with pytest.raises(BadRequestError, match="has no address"):
        root_address(root)
