# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the root that this runs in; its files are looked for below `top`. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from multiroot import arch
from multiroot.arena import backing
from multiroot.arena.arena import Arena, Standing, is_blank
from multiroot.device.handle import Device
from multiroot.device.uapi import Info
from multiroot.doctor.checks import Answer, Check, failed, ok, warning
from multiroot.doctor.machine import MachineDoctor
from multiroot.launch.facts import facts_of, facts_without_module, take_inventory
from multiroot.launch.kernels import KERNELS
from multiroot.net.plan import CONTROL_BRIDGE, CONTROL_LINKS
from multiroot.plan.planner import plan
from multiroot.plan.request import CARVE_ENOUGH, PlanConflictError, Request
from multiroot.root.identity import online_cpus, parse_command_line
from multiroot.rpc.client import AGENT_SOCKET
from multiroot.units import format_cpu_list, format_size
from multiroot.vm import nested_pages

_ANSWER_S = 10.0
_SMALL_PAGES = 0.1  # so much of what guests have touched may be mapped by the smallest pages


@dataclass
class RootDoctor:
    """The checks by id. Each depends only on what the checks before it look at."""

    top: Path = Path("/")
    device: Path = Path("/dev/multiroot")
    kernels: Path = KERNELS
    _info: Info | None = field(default=None, init=False)

    def checks(self) -> list[tuple[str, Check]]:
        return [
            ("cpu", self._cpu),
            ("machine", self._machine.cpus),
            ("kernel", self._machine.kernel),
            ("kvm", self._kvm),
            ("tsc", self._tsc),
            ("ipi", self._ipi),
            ("hotplug", self._hotplug),
            ("module", self._module),
            ("ledger", self._ledger),
            ("pci", self._pci),
            ("carve", self._carve),
            ("arena", self._arena),
            ("pages", self._pages),
            ("kernels", self._kernels),
            ("link", self._link),
            ("agent", self._agent),
        ]

    @property
    def _machine(self) -> MachineDoctor:
        return MachineDoctor(self.top)

    def _features(self) -> frozenset[str]:
        return arch.current().cpus.features(self._text("proc/cpuinfo"))

    def _cpu(self) -> Answer:
        ours, features = arch.current(), self._features()
        if not ours.cpus.wanted <= features:
            return failed(f"not {ours.cpus.what}", f"use an {ours.title} machine")
        virtualisation = features & ours.cpus.virtualisation
        if not virtualisation:
            mend = "enable it in the firmware; in a lab use -cpu max under TCG or nested KVM"
            return failed("the CPU can run no virtual machines", mend)
        return ok(f"{ours.title} with {', '.join(sorted(virtualisation))}")

    def _kvm(self) -> Answer:
        if (self.top / "dev/kvm").exists():
            return ok("/dev/kvm is there")
        return failed("no /dev/kvm", f"modprobe {' or '.join(arch.current().cpus.kvm_modules)}")

    def _tsc(self) -> Answer:
        source = self._text("sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
        cpus = arch.current().cpus
        if source not in cpus.clock_sources:
            return failed(
                f"the clock source is {source}", "boot with tsc=reliable: all roots count time by the TSC"
            )
        if source in cpus.derived:
            return ok(f"{source} is used, which is of the TSC as long as the host's clock source is")
        missing = cpus.clock - self._features()
        if missing:
            mend = "on hardware use a CPU that has it; an emulated machine's CPUs share one counter"
            return warning(
                f"the TSC is used, but the CPU does not promise {', '.join(sorted(missing))}", mend
            )
        return ok("the TSC is used and invariant")

    def _ipi(self) -> Answer:
        parameters = parse_command_line(self._text("proc/cmdline"))
        if parameters.get("no_ipi_broadcast") in ("1", "y", "on"):
            return ok("no_ipi_broadcast=1")
        mend = "add no_ipi_broadcast=1 to this kernel's command line"
        return warning("shorthand interrupts of this kernel reach CPUs of other roots", mend)

    def _hotplug(self) -> Answer:
        cpus = online_cpus(self.top / "sys")
        folder = self.top / "sys/devices/system/cpu"
        able = [cpu for cpu in cpus if (folder / f"cpu{cpu}/online").exists()]
        if able:
            return ok(f"of CPUs {format_cpu_list(cpus)} these can go offline: {format_cpu_list(able)}")
        if (folder / "offline").exists() and self._text("sys/devices/system/cpu/offline").strip():
            return warning(
                f"only CPU {format_cpu_list(cpus)} is online here", "the others may be another root's"
            )
        return failed(
            "no CPU can go offline", "a new root needs one: give the machine more, use CONFIG_HOTPLUG_CPU"
        )

    def _module(self) -> Answer:
        with Device(self.device) as device:
            self._info = info = device.info()
        kind = arch.current().cpus.controllers[info.wide_ids]
        return ok(f"multiroot.ko, ABI {info.abi}, root {info.root}, {kind}")

    def _ledger(self) -> Answer:
        if self._info is None:
            return self._machine.ledger()
        with Device(self.device) as device:
            alive = device.ledger().roots_alive
        return ok(f"at {self._info.ledger:#x}; roots that live by it: {alive}")

    def _pci(self) -> Answer:
        if self._info is None:
            return self._machine.pci(None)
        with Device(self.device) as device:
            return self._machine.pci(device.ledger())

    def _carve(self) -> Answer:
        if self._info and self._info.carved:
            return ok(f"taken: {format_size(self._info.carve_size)} at {self._info.carve_base:#x}")
        device = Device(self.device) if self._info else None
        try:
            facts = facts_of(device) if device else facts_without_module(self.top)
            made = plan(take_inventory(device, facts, self.top), Request(pmem=False))
        except PlanConflictError as error:
            if self._info and self._info.has_parent:
                return warning(
                    f"this root can't start another: {error.message}", "it can when its parent has gone"
                )
            raise
        finally:
            if device:
                device.close()
        how = "memory blocks that can go offline" if made.blocks else "reserved at boot"
        cpus = format_cpu_list([cpu.number for cpu in made.cpus])
        found = f"{format_size(made.carve.size)} at {made.carve.base:#x} ({how}), CPUs {cpus}"
        if made.carve.size < CARVE_ENOUGH:
            mend = f"an agent and a VMM want {format_size(CARVE_ENOUGH)}: boot with memmap=SIZE$START"
            return warning(f"{found}: too small for a root that has VMs", mend)
        return ok(found)

    def _arena(self) -> Answer:
        found = backing.find_device(self.top)
        where = f"{found.node} ({found.kind}), {format_size(found.size)} at {found.physical:#x}"
        lost = self._lost(self.top / str(found.node).lstrip("/"))
        if lost:
            mend = "free their memory: " + "; ".join(f"multiroot vm forget {name}" for name in lost)
            return warning(f"{where}; VMs lost with their roots: {', '.join(lost)}", mend)
        return ok(where)

    def _lost(self, node: Path) -> list[str]:
        """VMs that nobody can run any more, for the root that owns them has ended."""
        if self._info is None or is_blank(node):
            return []
        with Device(self.device) as device:
            arena = Arena(node, self._info.root, device.has_ended)
            try:
                return [vm.name for vm in arena.vms() if arena.standing(vm.owner) is Standing.LOST]
            finally:
                arena.close()

    def _pages(self) -> Answer:
        """Small ones make a guest wait after a handoff, once for each page that it touches."""
        switches = [self.top / "sys/module" / each for each in arch.current().cpus.nested_paging]
        off = [each for each in switches if each.exists() and each.read_text().strip() in ("N", "0")]
        if off:
            names = ", ".join(each.name for each in off)
            mend = f"load KVM's module with {off[0].name}=1"
            return warning(f"the CPU does not translate guests' memory: {names} is off", mend)
        kvm = self.top / "sys/kernel/debug/kvm"
        if not kvm.is_dir():
            return warning("KVM does not tell its pages", "mount -t debugfs debugfs /sys/kernel/debug")
        found = nested_pages.of_all(kvm)
        mapped = ", ".join(f"{count} of {format_size(size)}" for size, count in sorted(found.items()))
        small = min(arch.current().memory.page_sizes)
        if found.get(small, 0) * small > _SMALL_PAGES * sum(size * count for size, count in found.items()):
            mend = "`multiroot vm show NAME` tells of one VM; handed over or started anew it gets large ones"
            return warning(f"KVM maps guests' memory by small pages: {mapped}", mend)
        return ok(f"KVM maps guests' memory by these pages: {mapped}" if mapped else "no guest runs here")

    def _kernels(self) -> Answer:
        names = sorted(path.parent.name for path in self.kernels.glob("*/vmlinuz"))
        if names:
            return ok(", ".join(names))
        mend = f"name new roots' kernels by the path of a {arch.current().kernel.name}"
        return warning(f"no kernel in {self.kernels}", mend)

    def _link(self) -> Answer:
        folder = self.top / "sys/class/net"
        if not (folder / CONTROL_BRIDGE).exists():
            return failed(f"there is no bridge {CONTROL_BRIDGE}", "the agent makes it: is it running?")
        wanted = [self._info.has_parent, self._info.carved] if self._info else [False, False]
        names = [name for name, there in zip(CONTROL_LINKS, wanted, strict=True) if there]
        down = [name for name in names if not self._carrier(folder / name)]
        if down:
            return failed(
                f"no carrier on {', '.join(down)}", "the other root is down or still starting: `root list`"
            )
        return ok(f"{CONTROL_BRIDGE}, {', '.join(names) or 'no other root yet'}")

    def _agent(self) -> Answer:
        import grpc

        from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

        socket = self.top / str(AGENT_SOCKET).lstrip("/")
        mend = "see /var/log/multiroot/multirootd.log"
        if not socket.exists():
            return failed(f"no agent at {socket}", f"start multirootd; {mend}")
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            try:
                stub = root_pb2_grpc.RootServiceStub(channel)
                status = stub.GetStatus(root_pb2.GetStatusRequest(), timeout=_ANSWER_S)
            except grpc.RpcError as error:
                return failed(f"the agent does not answer: {error.details()}", mend)
        peers = ", ".join(f"root {peer.root} {peer.state}" for peer in status.peers if peer.root)
        return ok(f"root {status.root}, version {status.agent_version}; {peers or 'no peers'}")

    @staticmethod
    def _carrier(device: Path) -> bool:
        """Whether the netdev is there, up, and has a carrier (reading it fails while it is down)."""
        try:
            return (device / "carrier").read_text().strip() == "1"
        except OSError:
            return False

    def _text(self, path: str) -> str:
        return (self.top / path).read_text()
