# SPDX-License-Identifier: GPL-2.0-or-later
"""What outlives a kernel in the arena beside a VM's RAM: its device state and what a new kernel must know."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass

from multiroot.errors import BadRequestError
from multiroot.vm.definition import VmDefinition
from multiroot.vm.fields import from_data

_HEAD = struct.Struct("<8sII")  # magic, bytes of JSON, bytes of device state
_MAGIC = b"MRBENCH1"


@dataclass(frozen=True)
class Carried:
    """`moments` are ns on the TSC clock by name; `last_tick` is the last one seen before."""

    definition: VmDefinition
    tsc_khz: int
    last_tick: int
    moments: dict[str, int]

    def pack(self, state: bytes) -> bytes:
        """As it lies in memory."""
        text = json.dumps(asdict(self)).encode()
        return _HEAD.pack(_MAGIC, len(text), len(state)) + text + state


def unpack(memory: bytes) -> tuple[Carried, bytes]:
    """What was packed at the start of `memory`, and the device state; BadRequestError if nothing was."""
    try:
        magic, length, size = _HEAD.unpack_from(memory)
        if magic != _MAGIC or len(memory) < _HEAD.size + length + size:
            raise ValueError("no magic number, or cut off")
        data = json.loads(memory[_HEAD.size : _HEAD.size + length])
        data["definition"] = from_data(data["definition"], VmDefinition)
        start = _HEAD.size + length
        return Carried(**data), bytes(memory[start : start + size])
    except (struct.error, ValueError, TypeError, KeyError) as error:
        raise BadRequestError(f"no VM was carried over: {error}") from error
