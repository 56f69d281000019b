# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left for the next kernel is found again whole, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.in_root.carried import Carried, unpack
from multiroot.errors import BadRequestError
from multiroot.vm.definition import VmDefinition

CARRIED = Carried(VmDefinition("vm1").checked(), 2_000_000, 77, {"stopped": 1, "left": 2})


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_there_and_back(state: bytes, behind: bytes) -> None:
    assert unpack(CARRIED.pack(state) + behind) == (CARRIED, state)


@given(st.binary(max_size=100))
def test_anything_else_is_refused(memory: bytes) -> None:
    with pytest.raises(BadRequestError, match="no VM was carried over"):
        unpack(memory)


def test_a_state_cut_off_is_refused() -> None:
    packed = CARRIED.pack(b"0123456789")
    with pytest.raises(BadRequestError, match="cut off"):
        unpack(packed[:-1])
