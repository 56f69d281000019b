# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of a handoff when it is over: its phases and its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from multiroot.arena.layout import Owner
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase
from multiroot.rpc import phases as phase_messages
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, handoff_pb2
from multiroot.vm.vmm import Saved


def phases_of(name: str, side: str, messages: Iterable[common_pb2.Phase], saved: Saved) -> Iterator[Phase]:
    """Those of the taker of VM `name`, as it told them, and the one in which we, `side`, saved."""
    for phase in map(phase_messages.from_proto, messages):
        told = replace(phase, attrs={**phase.attrs, "vm": name})
        yield _since(told, saved.saved_ns) if phase.name == PhaseName.LOAD_DEVICE_STATE else told
    took_ns = saved.saved_ns - saved.stopped_ns
    yield Phase(
        PhaseName.SAVE_DEVICE_STATE, side, saved.stopped_ns, took_ns, blackout=True, attrs={"vm": name}
    )


def result_of(name: str, answer: handoff_pb2.Taken, saved: Saved) -> coordinator_pb2.HandoffResult:
    """The result for a VM that was handed over."""
    return coordinator_pb2.HandoffResult(
        name=name,
        device_state_bytes=saved.sent_bytes,
        ram_bytes_copied=saved.ram_bytes_copied,
        epoch=answer.epoch,
        stopped_ns=saved.stopped_ns,
        resumed_ns=answer.resumed_ns,
        device=answer.device if answer.HasField("device") else None,
    )


def result_without_answer(name: str, owner: Owner, saved: Saved) -> coordinator_pb2.HandoffResult:
    """The same as far as it is known without the taker's answer."""
    return coordinator_pb2.HandoffResult(
        name=name, device_state_bytes=saved.sent_bytes, epoch=owner.epoch, stopped_ns=saved.stopped_ns
    )


def _since(phase: Phase, start_ns: int) -> Phase:
    """The taker loads while we save; what it still needs when all is saved is its own."""
    end_ns = phase.end_ns or phase.start_ns
    start_ns = min(start_ns, end_ns)
    return replace(phase, start_ns=start_ns, duration_ns=end_ns - start_ns)
