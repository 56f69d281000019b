# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian of the demo as a VM: started, logged in to, powered off."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.demo.debian_disks import NAME, GuestDisk
from multiroot.demo.streams import Login
from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.lab import forwards
from multiroot.lab.lab import Lab
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc import client
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.disk import name_in_guest

BOOT_S = 900.0  # many times what was seen: an emulated CPU on a busy workstation
WORK_S = 300.0  # seconds that something in the guest may take
SSH = 22


class DebianGuest:
    """The VM with that disk in a lab machine."""

    def __init__(
        self,
        machine: Lab,
        disk: GuestDisk,
        phases: Phases,
        folder: Path,
        memory: int,
        firmware: str,
    ) -> None:
        self._machine = machine
        self._disk = disk
        self._phases = phases
        self._folder = folder
        self._memory = memory
        self._firmware = firmware

    def boot(self) -> Login:
        """Start the VM and wait until SSH lets us in."""
        with self._phases.phase(PhaseName.COPY_IMAGE, disk=type(self._disk).__name__):
            disks = self._disk.provide(self._machine)
        definition = vm_pb2.VmDefinition(
            name=NAME,
            ram_bytes=self._memory,
            firmware=self._firmware,
            cards=[vm_pb2.Card()],
            disks=disks,
            boot_order=[name_in_guest(0)],
            user_data=self._disk.user_data,
        )
        with self._phases.phase(PhaseName.WAIT_FOR_GUESTS, firmware=self._firmware):
            with self._agent() as channel:
                vm_pb2_grpc.VmServiceStub(channel).Run(
                    vm_pb2.RunVmRequest(definition=definition), timeout=120
                )
            return self.login()

    def login(self) -> Login:
        """Wait until SSH lets us in."""
        port = forwards.add(self._machine.state, self.address(), SSH, vm=NAME).port
        login = Login(port, self._disk.key, self._folder / "known_hosts")
        self._wait_for_ssh(login)
        return login

    def address(self) -> str:
        """The address that the guest was given, once it is heard of."""
        until = time.monotonic() + BOOT_S
        with self._agent() as channel:
            while time.monotonic() < until:
                found = vm_pb2_grpc.VmServiceStub(channel).Get(vm_pb2.GetVmRequest(name=NAME), timeout=60)
                if found.state != "running":
                    raise MultirootError(f"{NAME} is {found.state}: {found.error}")
                if found.stations:
                    return str(found.stations[0].address)
                time.sleep(1)  # nobody tells of a guest that finds its network
        raise WaitTimeoutError(f"{NAME} asked for no address within {BOOT_S:g} s")

    def _wait_for_ssh(self, login: Login) -> None:
        until = time.monotonic() + BOOT_S
        while True:
            done = proc.run(
                login.argv("cloud-init status --wait >/dev/null; true"), check=False, timeout=BOOT_S
            )
            if done.returncode == 0:
                return
            if time.monotonic() > until:
                raise WaitTimeoutError(f"{NAME} lets nobody in: {done.stderr.strip()}")
            time.sleep(2)  # the server is not up yet

    def power_off(self, login: Login) -> None:
        """Have it end by itself."""
        proc.run(login.argv("sudo poweroff"), check=False, timeout=WORK_S)
        until = time.monotonic() + WORK_S
        with self._agent() as channel:
            while time.monotonic() < until:
                found = vm_pb2_grpc.VmServiceStub(channel).Get(vm_pb2.GetVmRequest(name=NAME), timeout=60)
                if found.state == "stopped":
                    return
                time.sleep(1)  # no call waits for it
        raise WaitTimeoutError(f"{NAME} did not power off within {WORK_S:g} s")

    def _agent(self) -> Any:
        return client.connect(self._machine.agent_address)
