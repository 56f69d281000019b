# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's tests under KVM, inside an emulated workstation. Each test here tells of one there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from workstations import Workstation

LAB = Path(__file__).parent.parent
FILES = ("kvm/inside.py", "test_update.py", "test_retire.py", "test_vm.py")
_SHOWN = 4000  # characters
# Boot, launch, handoff there and back and there again: some minutes.
SHORT = {
    "test_the_workstation_has_kvm_and_builds_nothing",
    "test_without_nesting_one_line_says_what_to_do",
    "test_a_vm_goes_there_and_back_and_there_again",
}


def functions() -> Iterator[object]:
    """The tests of those files, by name: to import them outside would say no more."""
    for file in FILES:
        for name in re.findall(r"^def (test_\w+)", (LAB / file).read_text(), re.MULTILINE):
            marks = [pytest.mark.kvm_short] if name in SHORT else []
            yield pytest.param(f"tests/lab/{file}::{name}", id=f"{Path(file).stem}-{name}", marks=marks)


@pytest.mark.parametrize("inside", [*functions()])
def test_inside(workstation: Workstation, inside: str) -> None:
    """Proves under KVM what the test of that name proves."""
    verdicts = workstation.verdicts(inside)
    for verdict in verdicts:
        print(f"{verdict.outcome} in {verdict.seconds} s: {verdict.test} {verdict.text[:_SHOWN]}")  # noqa: T201
    failed = [f"{verdict.test}\n{verdict.text}" for verdict in verdicts if verdict.outcome == "failed"]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)
    if all(verdict.outcome == "skipped" for verdict in verdicts):
        pytest.skip(verdicts[0].text)
