# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of a handoff when it is over: its phases and its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from multiroot.arena.layout import Owner
from multiroot.phase_names import PhaseName
from multiroot.phases import AttrValue, Phase
from multiroot.rpc import phases as phase_messages
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, handoff_pb2
from multiroot.vm.vmm import Saved


def phases_of(
    name: str, side: str, messages: Iterable[common_pb2.Phase], saved: Saved, sent_ns: int
) -> Iterator[Phase]:
    """Those of the taker of VM `name`, as it told them, and those that began with us, `side`. The last of the
    state came from our VMM at `sent_ns`.

    The taker loads while we save: what counts is what it still does when the last of the state has arrived.
    """
    attrs: dict[str, AttrValue] = {"vm": name}
    # Our VMM says that all is saved when it has written the last of it, or a little later.
    saved_ns = max(saved.stopped_ns, min(saved.saved_ns, sent_ns))
    for phase in map(phase_messages.from_proto, messages):
        yield replace(phase, attrs={**phase.attrs, "vm": name})
        if phase.name == PhaseName.LOAD_DEVICE_STATE:
            way = max(0, phase.start_ns - saved_ns)
            yield Phase(PhaseName.ON_THE_WAY, side, saved_ns, way, blackout=True, attrs=attrs)
    took_ns = saved_ns - saved.stopped_ns
    yield Phase(PhaseName.SAVE_DEVICE_STATE, side, saved.stopped_ns, took_ns, blackout=True, attrs=attrs)


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
