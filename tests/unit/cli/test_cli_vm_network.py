# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.cli.vm_network import address_in, parse_ports
from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import vm_pb2


@pytest.mark.parametrize(
    ("text", "ports"), [("80", (0, 80)), ("8080:80", (8080, 80)), ("65535:1", (65535, 1))]
)
def test_ports(text: str, ports: tuple[int, int]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text", ["", ":", "80:", ":80", "0:80", "80:0", "65536", "-1:80", "1:2:3", "\u0662:80", "http"]
)
def test_what_are_no_ports(text: str) -> None:
    with pytest.raises(BadRequestError, match="not ports"):
        parse_ports(text)


@given(text=st.text())
def test_any_text_is_ports_or_refused(text: str) -> None:
    try:
        here, there = parse_ports(text)
    except BadRequestError:
        return
    assert 0 <= here <= 65535
    assert 1 <= there <= 65535


def test_a_guest_is_where_it_was_seen_last_else_where_it_was_told_to_be() -> None:
    cards = [
        vm_pb2.Card(mac="52:54:00:00:00:01", address="10.77.1.5/16"),
        vm_pb2.Card(mac="52:54:00:00:00:02"),
    ]
    vm = vm_pb2.Vm(definition=vm_pb2.VmDefinition(cards=cards))
    assert address_in(vm) == "10.77.1.5"
    vm.stations.add(mac="52:54:00:00:00:02", address="10.77.4.1")
    assert address_in(vm) == "10.77.1.5"
    vm.stations.add(mac="52:54:00:00:00:01", address="10.77.4.2")
    assert address_in(vm) == "10.77.4.2"
    assert address_in(vm_pb2.Vm()) == ""
