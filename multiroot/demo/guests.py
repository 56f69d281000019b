# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's VMs: started in the old root, waited for until their guests tick.

A guest that resets itself or falls silent while its kernel boots is started again, and that is counted:
under two layers of emulation this happens now and then, like a lab machine that hangs while it boots. Once
a guest has ticked nothing is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from multiroot.demo import device
from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.net.addresses import guest_address, interface
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.messages import ticks_from_proto

ATTEMPTS = 3
BOOT_TIMEOUT = 300.0  # seconds a guest may take to boot: under nested emulation, on a busy machine
CALL_TIMEOUT = 30.0
ECHO_PORT = 7  # where a guest says everything back
BOARD_PORT = 80  # where it keeps a board that visitors draw on
AGENT = "the old root's agent"


def definitions(count: int, ram_bytes: int, *, card: bool = False) -> list[vm_pb2.VmDefinition]:
    """vm1, vm2, ... as the demo runs them; with `card`, for one alone, it owns the machine's network card."""
    return [
        vm_pb2.VmDefinition(
            name=f"vm{number}",
            ram_bytes=ram_bytes,
            cpus=1,
            machine="q35",
            guest=device.GUEST if card else "ticker",
            cards=[vm_pb2.Card(address=interface(guest_address(number)))],
            functions=[device.CARD] if card else [],
            append=device.APPEND if card else f"ticker.echo={ECHO_PORT} ticker.board={BOARD_PORT}",
        )
        for number in range(1, count + 1)
    ]


def boot(channel: grpc.Channel, wanted: Sequence[vm_pb2.VmDefinition], ticks: int, phases: Phases) -> int:
    """Start all of them and return once each has ticked `ticks` times; how many boots were tried again.

    Raises what the agent says, or what became of a guest that did not boot in ATTEMPTS attempts.
    """
    stub = vm_pb2_grpc.VmServiceStub(channel)
    with phases.phase(PhaseName.START_VMS):
        for definition in wanted:
            _start(stub, definition)
    retries = 0
    with phases.phase(PhaseName.WAIT_FOR_GUESTS) as attributes:
        for definition in wanted:
            failures = _wait(stub, definition, ticks)
            retries += len(failures)
            if failures:
                attributes[definition.name] = f"booted again: {'; '.join(failures)}"
    return retries


def _start(stub: vm_pb2_grpc.VmServiceStub, definition: vm_pb2.VmDefinition) -> None:
    with translated(AGENT):
        stub.Run(vm_pb2.RunVmRequest(definition=definition), timeout=CALL_TIMEOUT)


def _wait(stub: vm_pb2_grpc.VmServiceStub, definition: vm_pb2.VmDefinition, ticks: int) -> list[str]:
    """Why earlier attempts failed, oldest first."""
    failures: list[str] = []
    while True:
        request = vm_pb2.GetTicksRequest(name=definition.name, wait_count=ticks)
        try:
            with translated(AGENT):
                stub.GetTicks(request, timeout=BOOT_TIMEOUT)
        except (ConflictError, WaitTimeoutError) as error:
            failures.append(str(error))
        else:
            return failures
        if len(failures) == ATTEMPTS or _ticks_already(stub, definition.name):
            raise MultirootError(f"the guest of {definition.name} did not boot: {failures[-1]}")
        with translated(AGENT):
            stub.Remove(vm_pb2.RemoveVmRequest(name=definition.name, force=True), timeout=CALL_TIMEOUT)
        _start(stub, definition)


def _ticks_already(stub: vm_pb2_grpc.VmServiceStub, name: str) -> bool:
    with translated(AGENT):
        seen = stub.GetTicks(vm_pb2.GetTicksRequest(name=name), timeout=CALL_TIMEOUT)
    return bool(ticks_from_proto(seen).ticks)
