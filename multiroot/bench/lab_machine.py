# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab machine that a bench runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases


@contextmanager
def lab_machine(options: labs.Options, phases: Phases) -> Iterator[tuple[Lab, Agents]]:
    """A lab and its agents; the machine ends with it."""
    machine = labs.up(options, phases)
    try:
        with Agents(machine.agent_address) as agents:
            yield machine, agents
    finally:
        with phases.phase(PhaseName.SHUT_LAB_DOWN, lab=options.name):
            machine.down()
