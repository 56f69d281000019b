# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab machine on which faults happen: two roots and one VM, made ready before each of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from multiroot import __version__, arch
from multiroot.demo import guests
from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.failpoints import Order
from multiroot.faults.console_shell import ConsoleShell
from multiroot.handoff.terms import PATIENT, Terms, to_proto
from multiroot.lab import lab as labs
from multiroot.lab.execution import Result
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import console_socket
from multiroot.lab.trouble import check_machine
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.roles import OTHER
from multiroot.rpc import client
from multiroot.rpc.progress import follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import (
    coordinator_pb2,
    coordinator_pb2_grpc,
    failpoint_pb2,
    failpoint_pb2_grpc,
    root_pb2,
    root_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)
from multiroot.units import MIB
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.ticks import Stretch

MACHINE = "faults"  # of qemu-lab/machines
APPEND = "multirootd.failpoints"  # to a new root's command line
VM = "vm1"
VM_MEMORY = 128 * MIB
SLOW = "ticker.period=40"  # usual ticks would take up most of an emulated CPU, and agents wait for it
ROOTS = ("old", "new")
ASK_S = 20.0
OPERATION_S = 240.0  # a handoff, a launch
TICKS_S = 240.0
BOOTED_TICKS = 30
JOIN_S = 120
RESTART_S = 60.0
ATTEMPTS = 3  # emulated roots hang while they boot now and then
ACTIVE = ("starting", "running", "incoming", "frozen")
OVER = ("failed", "lost", "stopped")  # the guest is gone

# A line each; patterns in brackets do not find the shell that runs this.
_STANDING = """
cat /sys/devices/system/cpu/online
pgrep -c qemu-system
pgrep -fc '[v]m/console.py'
ls /sys/class/net | grep -c '^mrtap'
grep -c . /proc/interrupts
pgrep -fc '[/]usr/bin/multirootd'
"""
_COUNTED = ("cpus", "vmms", "console keepers", "taps", "interrupts", "agents")


@dataclass(frozen=True)
class Sight:
    """A VM in one root: its state as the agent says ("" if it does not know it), its owner, its VMMs."""

    state: str
    owner: int
    epoch: int
    vmms: int


class Ground:
    """A lab machine, booted when it is first needed."""

    def __init__(
        self, options: labs.Options, kernel: str, phases: Phases, *, vms: Sequence[vm_pb2.VmDefinition] = ()
    ) -> None:
        """`kernel` is the new root's; `vms` are all that run, one small one if nothing is said."""
        self._options = options
        self._kernel = kernel
        self.phases = phases
        self.vms = list(vms) or definitions(1, VM_MEMORY, SLOW)
        self._stack = ExitStack()
        self._lab: Lab | None = None
        self._channels: dict[str, grpc.Channel] = {}

    @property
    def lab(self) -> Lab:
        """The machine that runs."""
        if self._lab is None:
            self._lab = labs.up(self._options, self.phases)
            for root in ROOTS:
                self._channels[root] = self._stack.enter_context(
                    client.connect(self._lab.agent_address, root=root)
                )
        return self._lab

    def down(self) -> None:
        """End the machine; the next use boots another one."""
        self._stack.close()
        if self._lab is not None:
            self._lab.down()
        self._lab = None

    # Asking

    def status(self, root: str, *, wait: bool = False) -> root_pb2.RootStatus:
        """What a root says of itself; with `wait`, as soon as its agent answers."""
        stub = root_pb2_grpc.RootServiceStub(self._on(root))
        with translated(f"the {root} root's agent"):
            return stub.GetStatus(
                root_pb2.GetStatusRequest(), timeout=TICKS_S if wait else ASK_S, wait_for_ready=wait
            )

    def versions(self) -> dict[str, str]:
        """What runs here: multiroot, the kernel, the QEMU of the VMs, the machine's accelerator."""
        qemu = self.run([arch.current().lab.program, "--version"]).stdout.split("\n")[0]
        return {
            "multiroot": __version__,
            "kernel": self.status("old").kernel_release,
            "QEMU": qemu.removeprefix("QEMU emulator version "),
            "accelerator": self.lab.state.machine.accelerator,
        }

    def until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """`until` on this machine: PeerLostError as soon as it has ended."""
        until(condition, timeout_s, what, lambda: check_machine(self.lab.state))

    def run(self, argv: Sequence[str], root: str = "old", timeout: float = 60.0) -> Result:
        """Run a command in a root."""
        return self.lab.run(argv, root=root, timeout=timeout)

    def shell(self, script: str, root: str = "old", timeout: float = 60.0) -> str:
        """What a shell script in a root prints."""
        return self.run(["sh", "-c", script], root, timeout).stdout

    def child_state(self) -> str:
        """How the old root sees the new one; "" if there is none."""
        peers = self.status("old").peers
        return next((peer.state for peer in peers if peer.role == root_pb2.PeerStatus.ROLE_CHILD), "")

    def see(self, root: str, name: str = VM) -> Sight:
        """The VM in a root. Raises MultirootError if the root's agent does not answer."""
        with translated(f"the {root} root's agent"):
            found = vm_pb2_grpc.VmServiceStub(self._on(root)).List(vm_pb2.ListVmsRequest(), timeout=ASK_S)
        count = self.run(["pgrep", "-c", "-f", f"guest={name}"], root, ASK_S).stdout.strip()
        for vm in found.vms:
            if vm.definition.name == name:
                return Sight(vm.state, vm.owner, vm.epoch, int(count or 0))
        return Sight("", 0, 0, int(count or 0))

    def stretch(self, root: str, more: int = 0, name: str = VM) -> Stretch:
        """The guest's output in a root, once it has ticked `more` times from now on."""
        stub = vm_pb2_grpc.VmServiceStub(self._on(root))
        with translated(f"the guest, watched in the {root} root,"):
            found = stub.GetTicks(vm_pb2.GetTicksRequest(name=name), timeout=ASK_S)
            if more:
                request = vm_pb2.GetTicksRequest(name=name, wait_count=len(found.counter) + more)
                found = stub.GetTicks(request, timeout=TICKS_S)
        return ticks_from_proto(found)

    def standing(self, *, joined: bool) -> dict[str, Any]:
        """What the roots have: CPUs, memory, extents, processes, taps, vectors."""
        found: dict[str, Any] = {}
        for root in ROOTS if joined else ("old",):
            counted = dict(zip(_COUNTED, self.shell(_STANDING, root).split("\n"), strict=False))
            memory = [(each.start, each.size) for each in self.status(root).memory]
            found |= {f"{root} root's {what}": value for what, value in counted.items()}
            found[f"{root} root's memory"] = memory
        arena = json.loads(self.run(["multiroot", "arena", "show", "--json"]).stdout)
        found["extents"] = sorted((each["name"], each["size"]) for each in arena["extents"])
        return found

    # Doing

    def arm(self, root: str, order: Order) -> None:
        """Give a root's agent an order."""
        request = failpoint_pb2.ArmRequest(
            point=order.point,
            action=order.action,
            about=order.about,
            seconds=order.seconds,
            times=order.times,
        )
        with translated(f"the {root} root's agent"):
            failpoint_pb2_grpc.FailPointServiceStub(self._on(root)).Arm(request, timeout=ASK_S)

    def reached(self, root: str, point: str, timeout_s: float) -> None:
        """Wait until a point was reached. Raises MultirootError; also when the agent ends meanwhile."""
        request = failpoint_pb2.AwaitReachedRequest(point=point, timeout_s=timeout_s)
        with translated(f"the {root} root's agent"):
            stub = failpoint_pb2_grpc.FailPointServiceStub(self._on(root))
            stub.AwaitReached(request, timeout=timeout_s + ASK_S)

    def disarm(self, roots: Sequence[str]) -> None:
        """Take back all orders in these roots, as soon as their agents answer: one may just be restarting."""

        def disarmed(root: str) -> bool:
            with translated(f"the {root} root's agent"):
                stub = failpoint_pb2_grpc.FailPointServiceStub(self._on(root))
                stub.Disarm(failpoint_pb2.DisarmRequest(), timeout=ASK_S)
            return True

        for root in roots:
            self.until(partial(disarmed, root), RESTART_S, f"the {root} root's orders were not taken back")

    def hand_over(self, to: str, name: str = VM, terms: Terms = PATIENT) -> coordinator_pb2.HandoffResult:
        """Hand the VM to the root `to` from the other one."""
        return self.hand_all(to, [name], lambda _: None, terms).handed_off

    def hand_all(
        self,
        to: str,
        names: Sequence[str],
        handed: Callable[[coordinator_pb2.HandoffResult], None],
        terms: Terms = PATIENT,
    ) -> coordinator_pb2.Progress:
        """Hand VMs to the root `to` by one command; `handed` gets each that arrives. The last message."""
        giver = OTHER[to]
        with translated(f"the {giver} root's agent"):
            request = coordinator_pb2.HandoffRequest(names=names, to=to, terms=to_proto(terms))
            return follow(self._coordinator(giver).Handoff(request, timeout=OPERATION_S), handed=handed)

    def cancel(self) -> None:
        """Have the VMs stay that the old root is handing over."""
        with translated("the old root's agent"):
            self._coordinator("old").CancelHandoff(
                coordinator_pb2.CancelHandoffRequest(), timeout=OPERATION_S
            )

    def launch(self) -> None:
        """Start a new root. One that is not heard of in time is tried again, as it was taken back."""
        request = coordinator_pb2.LaunchRequest(kernel=self._kernel, append=APPEND, join_timeout_s=JOIN_S)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._follow(lambda: self._coordinator("old").Launch(request, timeout=OPERATION_S))
            except WaitTimeoutError:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def launch_once(self) -> None:
        """Start a new root; raises MultirootError if it does not join."""
        request = coordinator_pb2.LaunchRequest(kernel=self._kernel, append=APPEND, join_timeout_s=JOIN_S)
        self._follow(lambda: self._coordinator("old").Launch(request, timeout=OPERATION_S))

    def release(self, *, force: bool = False) -> None:
        """End the new root."""
        request = coordinator_pb2.ReleaseRequest(force=force)
        self._follow(lambda: self._coordinator("old").Release(request, timeout=OPERATION_S))

    def commit(self) -> None:
        """Go on with the update, up to its commit. Faults are meant for the VM, not for a canary."""
        request = coordinator_pb2.UpdateRequest(
            launch=coordinator_pb2.LaunchRequest(kernel=self._kernel, append=APPEND),
            until=PhaseName.COMMIT,
            no_canary=True,
            terms=to_proto(PATIENT),
        )
        self._follow(lambda: self._coordinator("old").Update(request, timeout=OPERATION_S))

    def new_roots_console(self) -> ConsoleShell:
        """The way into the new root when the old one is dead."""
        return ConsoleShell(self.lab.state.folder / console_socket("new"))

    def stop_vm(self, root: str, name: str = VM) -> None:
        """End the VM and free its memory."""
        with translated(f"the {root} root's agent"):
            vm_pb2_grpc.VmServiceStub(self._on(root)).Remove(
                vm_pb2.RemoveVmRequest(name=name, force=True), timeout=60
            )

    def start_vms(self) -> None:
        """Start those VMs that are nowhere, in the old root, and wait until their guests tick."""
        wanted = []
        for definition in self.vms:
            state = self.see("old", definition.name).state
            if state in OVER:
                self.stop_vm("old", definition.name)
            if state not in ACTIVE:
                wanted.append(definition)
        guests.boot(self._on("old"), wanted, BOOTED_TICKS, self.phases)

    # Getting ready

    def ready(self, *, joined: bool) -> None:
        """Every VM runs in the old root, and a new root has joined or there is none."""
        assert self.lab
        self.status("old", wait=True)
        with suppress(WaitTimeoutError):
            # An agent that was ended is started again.
            self.until(
                lambda: self.child_state() != "lost", RESTART_S, "the new root's agent did not come back"
            )
        child = self.child_state()
        if child and child != "ready":
            self.release(force=True)
            child = ""
        if child:
            # One that was started again says that it is ready before it has found its VMs.
            self.status("new", wait=True)
            self._bring_back()
        if child and not joined:
            self.release()
        self.start_vms()
        if joined and not child:
            self.launch()

    def _bring_back(self) -> None:
        for definition in self.vms:
            if self.see("new", definition.name).state == "running":
                self.hand_over("old", definition.name)

    def _follow(self, call: Any) -> None:
        with translated("the old root's agent"):
            follow(call())

    def _coordinator(self, root: str) -> coordinator_pb2_grpc.CoordinatorServiceStub:
        return coordinator_pb2_grpc.CoordinatorServiceStub(self._on(root))

    def _on(self, root: str) -> grpc.Channel:
        assert self.lab
        return self._channels[root]


def definitions(count: int, ram_bytes: int, append: str) -> list[vm_pb2.VmDefinition]:
    """The demo's VMs, with `append` on their guests' command lines."""
    found = guests.definitions(count, ram_bytes)
    for definition in found:
        definition.append = append
    return found


def until(condition: Callable[[], object], timeout_s: float, what: str, check: Callable[[], None]) -> None:
    """Ask until something holds; an agent that does not answer is asked again, unless `check` raises.

    Raises WaitTimeoutError after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    last = ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except MultirootError as error:
            check()
            last = f": {error.message}"
        time.sleep(0.5)
    raise WaitTimeoutError(f"{what} within {timeout_s:g} s{last}")
