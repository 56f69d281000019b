# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core/ledger.c, compiled for this program: which roots live."""

from __future__ import annotations

import ctypes

import pytest
from kernel_code import compiled

ONLINE, OFFLINE, GRANTED, STARTED, PARKED = range(5)
BOOT = 1
MOST = 288  # CPUs that a machine may have
Seats = dict[int, tuple[int, int]]  # by hardware id: root and state


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("ledger")
    library = ctypes.CDLL(str(compiled(folder, "core.h", "ledger_glue.c", "core/ledger.c")))
    library.multiroot_root_lives.restype = ctypes.c_bool
    return library


@pytest.mark.parametrize(
    ("seats", "alive"),
    [
        ({}, []),
        ({BOOT: (1, ONLINE), 2: (1, ONLINE), 3: (2, GRANTED)}, [1]),
        ({BOOT: (1, ONLINE), 3: (2, STARTED), 4: (2, ONLINE)}, [1, 2]),
        # The second one panicked; its other CPUs are parked, of which the ledger's states do not tell.
        ({BOOT: (1, ONLINE), 3: (2, PARKED), 4: (2, ONLINE)}, [1]),
        ({BOOT: (1, PARKED), 2: (1, ONLINE), MOST - 1: (2, STARTED)}, [2]),
        # It took the boot CPU over, started a third, and has ended.
        ({BOOT: (2, ONLINE), 3: (2, PARKED), 2: (3, STARTED)}, [3]),
        ({BOOT: (1, ONLINE), 3: (1, OFFLINE)}, [1]),
    ],
)
def test_a_root_lives_by_the_cpu_it_was_started_on(
    ledger: ctypes.CDLL, seats: Seats, alive: list[int]
) -> None:
    ledger.begin(BOOT)
    for hardware_id, (root, state) in seats.items():
        ledger.mr_ledger_set_cpu(hardware_id, root, state)
    assert [root for root in range(6) if ledger.multiroot_root_lives(root)] == alive


LOADED, EBUSY, EINVAL = 0, -16, -22


@pytest.mark.parametrize(
    ("seats", "hardware_id", "cpus", "answer"),
    [
        # Of before a reset: this kernel has every CPU that anybody lived on.
        ({0: (1, ONLINE), 2: (2, STARTED)}, 0, 4, LOADED),
        # Loaded again by the only root.
        ({0: (1, ONLINE), 1: (1, OFFLINE), 2: (2, PARKED)}, 0, 1, LOADED),
        # A crash kernel, or one put there by kexec, on the CPU of one of two roots.
        ({0: (1, ONLINE), 2: (2, STARTED)}, 0, 1, EBUSY),
        ({0: (1, ONLINE), 2: (2, STARTED)}, 2, 1, EBUSY),
        ({0: (2, ONLINE), 2: (3, STARTED)}, 0, 2, EBUSY),
    ],
)
def test_a_ledger_in_which_somebody_lives_is_not_made_anew(
    ledger: ctypes.CDLL, seats: Seats, hardware_id: int, cpus: int, answer: int
) -> None:
    ledger.begin(0)
    for number, (root, state) in seats.items():
        ledger.mr_ledger_set_cpu(number, root, state)
    assert ledger.load(hardware_id, cpus, 1) == answer
    assert ledger.owner(2) == (seats.get(2, (0,))[0] if answer else int(cpus > 2 and hardware_id == 0))


def test_each_cpu_of_a_large_machine_has_a_place_and_one_more_changes_nothing(ledger: ctypes.CDLL) -> None:
    ledger.begin(0)
    ledger.mr_ledger_bury()
    assert ledger.load(0, MOST, 1) == LOADED
    assert [ledger.owner(cpu) for cpu in range(MOST)] == [1] * MOST
    for cpu in range(MOST // 2, MOST):
        ledger.mr_ledger_set_cpu(cpu, 2, STARTED if cpu == MOST - 1 else GRANTED)
    assert [root for root in range(4) if ledger.multiroot_root_lives(root)] == [1, 2]
    ledger.mr_ledger_set_cpu(MOST, 3, STARTED)
    assert [root for root in range(4) if ledger.multiroot_root_lives(root)] == [1, 2]
    assert [ledger.mr_ledger_cpu_root(cpu) for cpu in (MOST // 2 - 1, MOST - 1, MOST, 1 << 31)] == [
        1,
        2,
        0,
        0,
    ]


def test_a_ledger_of_another_version_is_refused_and_one_that_was_buried_is_not(ledger: ctypes.CDLL) -> None:
    ledger.begin(0)
    ledger.of_version(99)
    assert ledger.load(0, 4, 1) == EBUSY
    assert ledger.load(0, 4, 2) == EINVAL
    ledger.begin(0)
    ledger.mr_ledger_set_cpu(9, 2, STARTED)
    assert ledger.load(0, 4, 1) == EBUSY
    ledger.begin(0)
    ledger.mr_ledger_set_cpu(9, 2, STARTED)
    ledger.mr_ledger_bury()
    assert ledger.load(0, 4, 2) == EINVAL
    assert ledger.load(0, 4, 1) == LOADED
