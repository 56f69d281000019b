# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core, what one of several roots may not do, and where there can be none."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import U64, compiled, loaded

EBUSY, EINVAL, EOPNOTSUPP, E2BIG = -16, -22, -95, -7
DOES_IT = 1
DONE, STOP = 0, 0x8000 | 1 - EBUSY  # of notifiers
HIBERNATE, HIBERNATED, SUSPEND, SUSPENDED, RESTORE = range(1, 6)
KEXEC, CRASH, MICROCODE = b"kernel_kexec", b"__crash_kexec", b"reload_store"
INTEL, AMD, ANOTHER = 0, 2, 7


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("veto")
    return compiled(folder, "veto.h", "veto_glue.c", "core/probes.c", "core/veto.c", "core/x86/host.c")


@pytest.fixture
def root(module: Path, tmp_path: Path) -> ctypes.CDLL:
    library = loaded(module, tmp_path)
    library.call.restype = ctypes.c_long
    return library


def others_live(root: ctypes.CDLL, value: bool) -> None:
    ctypes.c_bool.in_dll(root, "others_live").value = value


def test_a_root_that_is_alone_does_what_it_wants(root: ctypes.CDLL) -> None:
    assert root.mr_veto_init() == 0
    assert [root.call(name) for name in (KEXEC, CRASH, MICROCODE)] == [DOES_IT] * 3
    assert root.go_to_sleep(SUSPEND) == DONE


def test_beside_another_root_no_kernel_comes_in_its_place_and_the_machine_stays_awake(
    root: ctypes.CDLL,
) -> None:
    assert root.mr_veto_init() == 0
    others_live(root, True)
    assert [root.call(name) for name in (KEXEC, CRASH, MICROCODE)] == [EBUSY] * 3
    assert [root.go_to_sleep(how) for how in (HIBERNATE, SUSPEND, RESTORE)] == [STOP] * 3
    assert [root.go_to_sleep(how) for how in (HIBERNATED, SUSPENDED)] == [DONE] * 2
    others_live(root, False)
    assert root.call(KEXEC) == DOES_IT


def test_a_kernel_without_late_loading_needs_no_veto_for_it(root: ctypes.CDLL) -> None:
    ctypes.c_char_p.in_dll(root, "missing").value = MICROCODE
    assert root.mr_veto_init() == 0
    others_live(root, True)
    assert root.call(CRASH) == EBUSY
    root.mr_veto_exit()
    assert root.hooks() == 0


def test_a_kernel_that_can_not_be_hooked_is_left_as_it_was(root: ctypes.CDLL) -> None:
    ctypes.c_bool.in_dll(root, "probes_fail").value = True
    assert root.mr_veto_init() == EINVAL
    assert root.hooks() == 0


def test_probes_stay_when_somebody_wants_to_turn_ftrace_off(root: ctypes.CDLL) -> None:
    """The kernel takes all of them away, and says nothing."""
    assert (root.mr_probes_init(), root.mr_veto_init()) == (0, 0)
    others_live(root, True)
    assert root.turn_ftrace_off() == EBUSY
    assert root.call(KEXEC) == EBUSY
    root.mr_veto_exit()
    root.mr_probes_exit()
    assert root.hooks() == 0
    assert root.turn_ftrace_off() == 0


def test_where_ftrace_is_off_already_a_root_is_refused(root: ctypes.CDLL) -> None:
    """Probes could be registered, and would never be hit."""
    assert root.turn_ftrace_off() == 0
    assert root.mr_probes_init() == EBUSY
    assert root.hooks() == 0
    ctypes.c_bool.in_dll(root, "ftrace_enabled").value = True
    assert root.mr_probes_init() == 0


@pytest.mark.parametrize(
    ("vendor", "numbers", "answer"),
    [
        (AMD, {}, 0),
        (AMD, {"syscfg": 1 << 23}, 0),  # pages may be encrypted, and none is
        (AMD, {"syscfg": 1 << 24}, EOPNOTSUPP),
        (9, {"syscfg": 1 << 24}, EOPNOTSUPP),
        (INTEL, {"syscfg": 1 << 24}, 0),
        (INTEL, {"keys": 63}, 0),  # keys of MKTME, none of TDX
        (INTEL, {"keys": 32 << 32 | 31}, EOPNOTSUPP),
        (ANOTHER, {"syscfg": 1 << 24, "keys": 1 << 32}, 0),
    ],
)
def test_memory_that_has_owners_is_refused(
    root: ctypes.CDLL, vendor: int, numbers: dict[str, int], answer: int
) -> None:
    ctypes.c_uint8.in_dll(root, "boot_cpu_data").value = vendor
    for name, value in numbers.items():
        U64.in_dll(root, name).value = value
    assert root.mr_host_check() == answer


def test_memory_that_is_encrypted_is_refused(root: ctypes.CDLL) -> None:
    ctypes.c_bool.in_dll(root, "encrypted").value = True
    assert root.mr_host_check() == EOPNOTSUPP


def test_cpus_that_write_to_memory_of_a_root_that_has_ended_are_refused(root: ctypes.CDLL) -> None:
    ctypes.c_bool.in_dll(root, "feedback").value = True
    assert root.mr_host_check() == EOPNOTSUPP


@pytest.mark.parametrize(("hardware_id", "answer"), [(287, 0), (288, E2BIG), (1 << 31, E2BIG)])
def test_cpus_beyond_the_ledger_are_refused(root: ctypes.CDLL, hardware_id: int, answer: int) -> None:
    ctypes.c_uint32.in_dll(root, "last_hardware_id").value = hardware_id
    assert root.mr_host_check() == answer
