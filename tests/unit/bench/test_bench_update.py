# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from multiroot.bench.names import KEXEC, OURS, REBOOT
from multiroot.bench.update import Options, blackouts, contenders, view, zeroing
from multiroot.errors import BadRequestError, MultirootError
from multiroot.lab import lab as labs
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases

LAB = labs.Options(name="bench", kernel="6.12", kernels=("7.x",))


def names(options: Options) -> list[str]:
    return [each.name for each in contenders(options, Phases("test"))]


def test_all_contenders_with_each_number_of_vms() -> None:
    assert names(Options(LAB, vms=(8, 1))) == [
        "multi-root, 1 VM",
        "off-and-on, 1 VM",
        "multi-root, 8 VMs",
        "off-and-on, 8 VMs",
        "kexec-pmem, 1 VM",
    ]


def test_one_number_needs_no_name_of_its_own() -> None:
    assert names(Options(LAB, vms=(4,))) == [OURS, REBOOT, KEXEC]
    assert names(Options(LAB, vms=(4,), contenders=(OURS,))) == [OURS]


@pytest.mark.parametrize(
    ("only", "base"),
    [
        ((OURS, KEXEC, REBOOT), "kexec-pmem, 1 VM"),
        ((OURS, REBOOT), "off-and-on, 2 VMs"),
        ((OURS,), "multi-root, 2 VMs"),
    ],
)
def test_ratios_are_to_a_contender_that_is_there(only: tuple[str, ...], base: str) -> None:
    options = Options(LAB, vms=(8, 2), contenders=only)
    assert view(options).base == base
    assert base in names(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(LAB, contenders=("faster",)), "no contender 'faster'"),
        (Options(LAB, vms=()), "must be positive"),
        (Options(LAB, vms=(1, 0)), "must be positive"),
        (Options(LAB, rounds=0), "must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Options, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        options.checked()


def test_the_new_kernel_is_the_one_that_was_asked_for() -> None:
    assert Options(LAB).kernel == labs.kernel_name("7.x")


def test_a_blackout_is_all_of_a_vms_parts_that_lie_inside() -> None:
    def part(name: str, vm: str, start: int, took: int, *, blackout: bool = True) -> Phase:
        return Phase(name, "root 1", start, took, blackout=blackout, attrs={"vm": vm})

    steps = [
        part("prepare", "vm1", 0, 900, blackout=False),
        part("save device state", "canary", 10, 500),
        part("save device state", "vm1", 1000, 10),
        part("resume", "vm1", 1030, 5),
        part("save device state", "vm2", 2000, 40),
    ]
    assert blackouts(steps, ["vm1", "vm2"]) == [(1000, 1035), (2000, 2040)]
    with pytest.raises(MultirootError, match="vm3 was not handed over"):
        blackouts(steps, ["vm3"])


def test_the_rate_of_zeroing_is_that_of_all_pieces_together() -> None:
    def piece(size: int, took: int | None) -> Phase:
        return Phase(PhaseName.ZERO_MEMORY, "root 2", 0, took, attrs={"bytes": size})

    begins = [piece(1000, None), piece(3000, None)]
    steps = [begins[0], piece(1000, 10_000), begins[1], piece(3000, 10_000)]
    assert zeroing(steps) == pytest.approx(4000 / 20e-6)
    with pytest.raises(MultirootError, match="zeroed no memory"):
        zeroing(begins)
