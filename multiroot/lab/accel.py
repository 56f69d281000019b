# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator a lab machine gets: KVM where a probe showed that it works, else TCG."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import paths
from multiroot.lab.artifacts import Artifact
from multiroot.lab.build import BootKernel, Built
from multiroot.lab.machine import emulator_argv
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases

KVM = "kvm"
TCG = "tcg"
AUTO = "auto"  # the same as to say nothing
ACCELERATORS = (AUTO, KVM, TCG)
# A kernel gets there in a second on hardware. Here it may be an emulated workstation's, with others at work.
_PROBE_SECONDS = 60.0
# With no initramfs a kernel that got that far panics and, with panic=-1, resets: the probe ends by itself.
_PROBE_SAYS = "Unable to mount root fs"
_WITHOUT = f"--accel {TCG} works everywhere"
_MODULES = Path("/sys/module")


@dataclass(frozen=True)
class Problem:
    """What keeps lab machines from using KVM, and what to do about it."""

    message: str
    hint: str


def choose(built: Built, phases: Phases, wish: str | None = None) -> str:
    """The accelerator: what somebody wishes, or KVM where it works and TCG elsewhere.

    Raises BadRequestError for a wish that this host cannot meet.
    """
    if wish == TCG:
        return TCG
    problem = _kvm_problem(built, phases)
    if not problem:
        return KVM
    if wish == KVM:
        raise BadRequestError(f"KVM cannot be used here: {problem.message}", problem.hint)
    return TCG


def _kvm_problem(built: Built, phases: Phases) -> Problem | None:
    """None if nothing does.

    The answer of a probe is kept per host kernel and emulator. A host without KVM is not probed.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Problem("/dev/kvm is missing, or not yours to open", _WITHOUT)
    if problem := nesting_problem():
        return problem
    known = paths.make_dir(paths.cache_dir() / "probes") / f"{_key(built)}.json"
    if not known.exists():
        with phases.phase(PhaseName.PROBE_KVM) as attributes:
            works = probe(built.emulator, next(iter(built.kernels.values())))
            attributes["works"] = works
        known.write_text(json.dumps({"kvm": works}) + "\n")
        paths.give_to_user(known)
    if json.loads(known.read_text())["kvm"]:
        return None
    return Problem("a kernel that was tried did not boot", _WITHOUT)


def nesting_problem(modules: Path = _MODULES) -> Problem | None:
    """What keeps the host's KVM from letting its guests use KVM, which the lab's roots need; None if nothing
    does.
    """
    loaded = [name for name in arch.current().cpus.kvm_modules if (modules / name).is_dir()]
    flags = (modules / name / "parameters/nested" for name in loaded)
    if any(flag.exists() and flag.read_text().strip() in ("1", "Y") for flag in flags):
        return None
    message = "it does not let its guests use KVM, and the roots need that"
    if not loaded:
        return Problem(message, _WITHOUT)
    again = f"sudo modprobe -r {loaded[0]} && sudo modprobe {loaded[0]} nested=1"
    return Problem(message, f"`{again}` changes that while no VM runs; {_WITHOUT}")


def probe(emulator: Path, kernel: BootKernel) -> bool:
    """Whether a kernel boots under KVM, on two CPUs, to the point where it wants a file system."""
    of_qemu, serial = arch.current().lab, arch.current().serial
    model = ["-machine", of_qemu.machine_type, "-cpu", of_qemu.cpu]
    options = [*model, "-accel", KVM, "-smp", "2", "-m", "512M"]
    boot = ["-kernel", str(kernel.vmlinuz), "-append", f"console={serial}0 panic=-1"]
    show = ["-serial", "stdio", "-display", "none"]
    try:
        done = proc.run(
            [*emulator_argv(emulator), *options, *boot, *show], check=False, timeout=_PROBE_SECONDS
        )
    except CommandError:
        return False
    return _PROBE_SAYS in done.stdout


def _key(built: Built) -> str:
    inputs = {"host": platform.release(), "emulator": str(built.emulator), "cpu": _cpu_model()}
    return Artifact("kvm", inputs, lambda _: None).key


def _cpu_model() -> str:
    return arch.current().cpus.model(Path("/proc/cpuinfo").read_text())
