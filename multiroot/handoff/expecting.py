# SPDX-License-Identifier: GPL-2.0-or-later
"""The giver's half of what `ahead` does: VMs go on here, and the taker starts their VMMs before a handoff."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from multiroot.errors import MultirootError
from multiroot.handoff.evacuation import Outcome
from multiroot.handoff.giver import ABORT_TIMEOUT_S, PREPARE_TIMEOUT_S
from multiroot.handoff.target import Target
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import handoff_pb2, handoff_pb2_grpc
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_to_proto, extent_to_proto


async def expect(
    manager: VmManager, names: Sequence[str], to: Target, phases: Phases, at_once: int
) -> list[Outcome]:
    """Have `to` start a VMM for each VM, so many at once; of each the error if there was one.

    Raises BadRequestError or ConflictError, with nothing begun, for a name that no VM has or one that does
    not run here.
    """
    for name in names:
        manager.live(name)
    starting = asyncio.Semaphore(at_once)

    async def one(name: str) -> Outcome:
        async with starting:
            try:
                await _expect(manager, name, to, phases)
            except MultirootError as error:
                return Outcome(name, error=error)
        return Outcome(name)

    return list(await asyncio.gather(*(one(name) for name in dict.fromkeys(names))))


async def _expect(manager: VmManager, name: str, to: Target, phases: Phases) -> None:
    vm = manager.live(name)
    request = handoff_pb2.ExpectRequest(
        definition=definition_to_proto(vm.definition),
        extents=[extent_to_proto(vm.entry.extent)],
        giver=vm.owner.root,
        epoch=vm.owner.epoch,
        vmm=vm.vmm.name,
        vmm_version=vm.vmm.version,
        cpu=vm.cpu,
    )
    stub = handoff_pb2_grpc.HandoffServiceStub(to.agent)
    with phases.phase(PhaseName.EXPECT, vm=name), translated(f"root {to.root}'s agent"):
        await stub.Expect(request, timeout=PREPARE_TIMEOUT_S)


async def expect_no_more(names: Sequence[str], to: Target) -> None:
    """Have `to` end the VMMs that `expect` has started; nothing for a VM that it does not expect."""
    stub = handoff_pb2_grpc.HandoffServiceStub(to.agent)
    for name in names:
        with translated(f"root {to.root}'s agent"):
            await stub.Abort(handoff_pb2.AbortRequest(name=name, expected=True), timeout=ABORT_TIMEOUT_S)
