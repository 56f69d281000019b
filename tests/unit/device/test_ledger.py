# SPDX-License-Identifier: GPL-2.0-or-later
"""Which roots have ended, by what the ledger says of their CPUs."""

from __future__ import annotations

import pytest

from multiroot.device.uapi import CpuState, Ledger, LedgerCpu

ONLINE, OFFLINE, GRANTED, STARTED, PARKED = (
    CpuState.ONLINE, CpuState.OFFLINE, CpuState.GRANTED, CpuState.STARTED, CpuState.PARKED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("alive", "states", "ended"),
    [
        (2, [STARTED], False),  # its kernel has not come up yet
        (2, [ONLINE, ONLINE], False),
        (2, [ONLINE, OFFLINE], False),
        (2, [GRANTED], True),  # it was never started
        (1, [PARKED], True),
        (2, [PARKED, ONLINE], True),  # only its first CPU is marked, and another root was started since
        (2, [], True),  # its CPUs have been taken back
        (1, [ONLINE], True),  # its first CPU has been adopted already
    ],
)
def test_what_tells_that_a_root_has_ended(alive: int, states: list[CpuState], ended: bool) -> None:
    cpus = {0: LedgerCpu(1, ONLINE)} | {number: LedgerCpu(2, each) for number, each in enumerate(states, 1)}
    assert Ledger(3, alive, 0, (), cpus).has_ended(2) is ended
