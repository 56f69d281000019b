# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM is used only where a probe showed that it works, and the probe runs once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multiroot import proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import accel
from multiroot.lab.build import BootKernel, Built
from multiroot.phases import Phases

BOOTS = "[    1.0] VFS: Unable to mount root fs on unknown-block(0,0)\n"


class Host:
    """A workstation on which a probe boot says `says`, or never ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, kvm: bool, nested: bool, says: str | None) -> None:
        self.probes = 0
        self.says = says
        monkeypatch.setattr(os, "access", lambda path, mode: kvm)
        problem = None if nested else accel.Problem("not nested", "--accel tcg")
        monkeypatch.setattr(accel, "nesting_problem", lambda: problem)
        monkeypatch.setattr(proc, "run", self.run)

    def run(self, argv: list[str], **options: object) -> proc.Completed:
        assert argv[argv.index("-accel") + 1] == "kvm"
        self.probes += 1
        if self.says is None:
            raise CommandError("QEMU did not finish within 20 s")
        return proc.Completed(tuple(argv), 0, self.says, "")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel = BootKernel("6.1", "6.1.0", Path("/vmlinuz"), Path("/initrd"))
    return Built(Path("/emulator"), Path("/svm"), Path("/image"), "digest", {"6.1": kernel})


@pytest.mark.parametrize(
    ("kvm", "nested", "says", "chosen", "probes"),
    [
        (True, True, BOOTS, "kvm", 1),
        (True, True, "KVM internal error. Suberror: 1\n", "tcg", 1),
        (True, True, None, "tcg", 1),
        (True, False, BOOTS, "tcg", 0),
        (False, True, BOOTS, "tcg", 0),
    ],
    ids=["works", "fails", "hangs", "not nested", "absent"],
)
def test_the_choice_and_that_it_is_kept(
    built: Built,
    monkeypatch: pytest.MonkeyPatch,
    kvm: bool,
    nested: bool,
    says: str | None,
    chosen: str,
    probes: int,
) -> None:
    host = Host(monkeypatch, kvm=kvm, nested=nested, says=says)
    assert accel.choose(built, Phases("workstation")) == chosen
    assert accel.choose(built, Phases("workstation"), "auto") == chosen
    assert host.probes == probes


def test_another_emulator_is_probed_anew(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, kvm=True, nested=True, says=BOOTS)
    accel.choose(built, Phases("workstation"))
    newer = Built(Path("/newer"), built.emulator_mend, built.image, built.image_digest, built.kernels)
    accel.choose(newer, Phases("workstation"))
    assert host.probes == 2


def test_a_wish_for_tcg_asks_nobody(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, kvm=True, nested=True, says=BOOTS)
    assert accel.choose(built, Phases("workstation"), "tcg") == "tcg"
    assert host.probes == 0


def test_a_wish_for_kvm_is_met_where_it_works(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, kvm=True, nested=True, says=BOOTS)
    assert accel.choose(built, Phases("workstation"), "kvm") == "kvm"


@pytest.mark.parametrize(
    ("kvm", "nested", "says"),
    [(False, True, "/dev/kvm is missing"), (True, False, "not nested"), (True, True, "did not boot")],
)
def test_a_wish_for_kvm_that_cannot_be_met_says_why(
    built: Built, monkeypatch: pytest.MonkeyPatch, kvm: bool, nested: bool, says: str
) -> None:
    Host(monkeypatch, kvm=kvm, nested=nested, says="KVM internal error\n")
    with pytest.raises(BadRequestError, match=says) as error:
        accel.choose(built, Phases("workstation"), "kvm")
    assert "--accel tcg" in error.value.hint
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"kvm_intel": "Y"}, None),
        ({"kvm_amd": "1"}, None),
        ({"kvm_amd": "0"}, "`sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1`"),
        ({"kvm_intel": "N"}, "`sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1`"),
        ({}, "--accel tcg"),
    ],
    ids=["intel", "amd", "amd-without", "intel-without", "another"],
)
def test_without_nesting_the_hint_turns_it_on(
    tmp_path: Path, flags: dict[str, str], says: str | None
) -> None:
    for module, flag in flags.items():
        path = tmp_path / module / "parameters/nested"
        path.parent.mkdir(parents=True)
        path.write_text(f"{flag}\n")
    problem = accel.nesting_problem(tmp_path)
    assert (problem.hint.startswith(says) if problem and says else problem is None) is True
