# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMs `bench scale` uses, and the lines through what it measures."""

from __future__ import annotations

import pytest

from multiroot.bench import scale
from multiroot.bench.results.samples import Header, Run, Sample
from multiroot.errors import BadRequestError
from multiroot.lab import lab as labs
from multiroot.units import GIB, MIB


class NoPool:
    """Nobody asks it for anything while contenders are made."""


def make_run(samples: list[Sample]) -> Run:
    options = {"vms": [1, 4], "ram": [128 * MIB, 2 * GIB]}
    return Run(Header("scale", "", "", {}, {}, 0.0, 1, options), tuple(samples))


def test_each_number_and_each_size_is_a_contender_and_the_smallest_size_is_shared() -> None:
    options = scale.Options(labs.Options(), vms=(4, 1), ram=(2 * GIB, 128 * MIB))
    found = scale.contenders(options, NoPool())  # type: ignore[arg-type]
    assert [each.name for each in found] == ["1 x 128 MiB", "4 x 128 MiB", "1 x 2 GiB"]
    assert [each._names for each in found] == [["vm1"], ["vm1", "vm2", "vm3", "vm4"], ["large2048"]]
    assert options.arena == 4 * 128 * MIB + 2 * GIB


@pytest.mark.parametrize("wrong", [{"vms": (0,)}, {"vms": ()}, {"ram": (1,)}, {"rounds": 0}, {"tick": 0}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        scale.Options(labs.Options(), **wrong).checked()  # type: ignore[arg-type]


def test_slopes_are_per_vm_and_per_gib() -> None:
    samples = [
        Sample("1 x 128 MiB", 0, {"blackout_ns": 100.0, "all_ns": 1000.0}),
        Sample("4 x 128 MiB", 0, {"blackout_ns": 130.0}),
        Sample("4 x 128 MiB", 0, {"blackout_ns": 130.0, "all_ns": 4000.0}),
        Sample("1 x 2 GiB", 0, {"blackout_ns": 100.0, "all_ns": 1000.0}),
    ]
    lines = {line.what: line for line in scale.slopes(make_run(samples))}
    assert lines["all, per VM"].per == pytest.approx(1000)
    assert lines["blackout, per VM"].per == pytest.approx(10)
    assert lines["blackout, per GiB"].per == pytest.approx(0)
