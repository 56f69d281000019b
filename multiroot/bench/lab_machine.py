# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab machine that a bench runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.build import Built
from multiroot.lab.lab import Lab
from multiroot.lab.machine import Machine
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases


@contextmanager
def lab_machine(options: labs.Options, phases: Phases) -> Iterator[tuple[Lab, Agents]]:
    """A lab and its agents; the machine ends with it."""
    with _running(labs.up(options, phases), phases) as both:
        yield both


@contextmanager
def prepared_machine(machine: Machine, built: Built, phases: Phases) -> Iterator[tuple[Lab, Agents]]:
    """The same of a machine that was prepared (lab.prepare), and so is booted without a look at the cache."""
    with _running(labs.start(machine, built, phases), phases) as both:
        yield both


@contextmanager
def _running(machine: Lab, phases: Phases) -> Iterator[tuple[Lab, Agents]]:
    try:
        with Agents(machine.agent_address) as agents:
            yield machine, agents
    finally:
        with phases.phase(PhaseName.SHUT_LAB_DOWN, lab=machine.state.folder.name):
            machine.down()
