# SPDX-License-Identifier: GPL-2.0-or-later
"""The protocol of handoffs and updates, searched whole by spin: docs/handoff.md.

A variant that is broken on purpose has to be found wrong, so a model that cannot fail is noticed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from multiroot import proc
from multiroot.coordinator.adoption import AdoptionState
from multiroot.coordinator.states import State
from multiroot.rpc.v1 import handoff_pb2
from multiroot.vm.instance import VmState

HERE = Path(__file__).parent
MEMORY_MIB = 2048
DEPTH = 1_000_000
TIMEOUT_S = 300.0

missing = [tool for tool in ("spin", "gcc") if not shutil.which(tool)]
searched = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def search(model: str, folder: Path, *macros: str) -> str:
    """What the verifier of a model says after it has searched all its states."""
    words = [f"-D{macro}" for macro in macros]
    proc.run(["spin", "-a", *words, HERE / f"{model}.pml"], cwd=folder, timeout=TIMEOUT_S)
    limits = ["-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}"]
    # The update's verifier takes longer to optimise than to run.
    level = "-O0" if model == "update" else "-O1"
    proc.run(["gcc", level, "-w", *limits, "-o", "pan", "pan.c"], cwd=folder, timeout=TIMEOUT_S)
    said = proc.run([folder / "pan", f"-m{DEPTH}"], cwd=folder, timeout=TIMEOUT_S).stdout
    assert "max search depth too small" not in said
    assert "out of memory" not in said
    return said


@searched
@pytest.mark.parametrize(
    ("model", "macros"),
    [
        ("handoff", ("VMS=1",)),
        ("handoff", ("VMS=1", "DUPLICATES=1", "DAMAGES=0")),
        ("handoff", ("VMS=2", "ATTEMPTS=1", "LOSSES=0", "REFUSALS=0", "DAMAGES=0")),
        ("update", ("VMS=1",)),
        ("update", ("VMS=2",)),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_no_vm_runs_twice_and_none_is_left_behind(
    model: str, macros: tuple[str, ...], tmp_path: Path
) -> None:
    said = search(model, tmp_path, *macros)
    assert re.search(r"errors: 0$", said, re.MULTILINE), said


def variants() -> list[tuple[str, str]]:
    found = []
    for model in ("handoff", "update"):
        names = re.findall(r"#.*?\b(BROKEN_[A-Z_]+)", (HERE / f"{model}.pml").read_text())
        found += [(model, name) for name in sorted(set(names))]
    return found


@searched
@pytest.mark.parametrize(("model", "variant"), variants())
def test_what_is_broken_is_found(model: str, variant: str, tmp_path: Path) -> None:
    said = search(model, tmp_path, "VMS=1", variant)
    assert "assertion violated" in said, said


def test_there_are_broken_variants_of_both_models() -> None:
    assert {model for model, _ in variants()} == {"handoff", "update"}
    assert len(variants()) >= 20


def names(model: str, kind: str) -> set[str]:
    match = re.search(rf"mtype:{kind} = \{{ ([^}}]*) \}}", (HERE / f"{model}.pml").read_text())
    assert match, kind
    return set(match[1].split(", "))


def test_states_and_messages_are_named_as_in_the_code() -> None:
    # A paused VM is handed over like one that runs; only the last order to its VMM is left out.
    assert names("handoff", "vm_state") == {state.value for state in VmState} - {VmState.PAUSED}
    assert names("update", "update_state") == {state.name.lower() for state in State}
    assert names("update", "adoption_state") == {f"adoption_{state.name.lower()}" for state in AdoptionState}
    messages = set(handoff_pb2.DESCRIPTOR.message_types_by_name)
    assert names("handoff", "message") - {"Refused"} <= messages
