# SPDX-License-Identifier: GPL-2.0-or-later
"""What the CPUs of a new root did when it crashed or stood still, for the report of that."""

from __future__ import annotations

from multiroot.errors import MultirootError
from multiroot.ranges import Range
from multiroot.vmcore import kernel, traces
from multiroot.vmcore.info import Memory
from multiroot.vmcore.space import UnmappedError
from multiroot.vmcore.target import tables

HEADING = 'What its CPUs did, by what lies on their stacks ("?": called, but it may have returned):'


def traces_of(memory: Memory, ranges: list[Range], root: int) -> list[str]:
    """Lines to be shown: none for a kernel that has not come so far as to tell of itself, and one that says
    why where they cannot be read. A report does not fail for them.
    """
    try:
        found = kernel.find(memory, ranges)
        if found is None:
            return []
        space = tables(kernel.Ranges(memory, ranges).read, found.info)
        return [HEADING, *traces.lines(traces.of_all(space, found.info, kernel.parked(memory, ranges, root)))]
    except (UnmappedError, MultirootError) as error:
        return [f"What its CPUs did cannot be read: {error}"]
