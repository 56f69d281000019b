# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.units import GIB, MIB
from multiroot.vm.definition import VmDefinition
from multiroot.vm.messages import definition_from_proto, definition_to_proto

GOOD = VmDefinition("vm0", address="10.77.1.1/16").checked()


def test_defaults_are_filled_in() -> None:
    assert GOOD.ram_bytes == 256 * MIB
    assert GOOD.mac.startswith("52:54:00:")
    assert GOOD.checked() == GOOD
    assert VmDefinition("vm1").checked().mac != GOOD.mac


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "not a name"),
        ({"name": "Vm0"}, "not a name"),
        ({"name": "../x"}, "not a name"),
        ({"name": "-x"}, "not a name"),
        ({"name": "x" * 33}, "not a name"),
        ({"name": "vm0\n"}, "not a name"),
        ({"ram_bytes": 256 * MIB + 4096}, "multiple of 2 MiB"),
        ({"ram_bytes": 8 * MIB}, "too little"),
        ({"ram_bytes": -1}, "too little"),
        ({"cpus": 0}, "0 CPUs"),
        ({"cpus": 256}, "256 CPUs"),
        ({"machine": "pc"}, "no machine called 'pc'"),
        ({"machine": ""}, "no machine"),
        ({"machine": "q35,"}, "not a machine option"),
        ({"machine": "q35,memory-backend=other"}, "not yours to set"),
        ({"machine": "q35,suppress-vmdesc=off"}, "not yours to set"),
        ({"machine": "q35,hpet=on -nographic"}, "not a machine option"),
        ({"guest": "../../etc"}, "not a guest"),
        ({"append": "a\nb"}, "not printable"),
        ({"mac": "52:54:00:00:00"}, "not a MAC"),
        ({"mac": "01:00:5e:00:00:01"}, "not a MAC"),
        ({"address": "10.77.1.1"}, "prefix length"),
        ({"address": "10.77.1/16"}, "not an IPv4"),
        ({"address": "fe80::1/64"}, "not an IPv4"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        replace(GOOD, **change).checked()


def test_every_field_counts_in_the_checksum() -> None:
    changes: dict[str, Any] = {"ram_bytes": GIB, "cpus": 2}
    sums = {GOOD.checksum()}
    for field in fields(GOOD):
        sums.add(replace(GOOD, **{field.name: changes.get(field.name, "other")}).checksum())
    assert len(sums) == 1 + len(fields(GOOD))


@given(st.builds(VmDefinition, *[st.text(min_size=1)], st.integers(1, 1 << 40), st.integers(1, 255)))
def test_messages_carry_everything(definition: VmDefinition) -> None:
    assert definition_from_proto(definition_to_proto(definition)) == definition
    assert definition_from_proto(definition_to_proto(GOOD)) == GOOD
