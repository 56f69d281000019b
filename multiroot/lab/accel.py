# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator the lab machine gets: KVM only where a probe showed that it works, else TCG."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from multiroot import proc
from multiroot.errors import CommandError
from multiroot.lab import paths
from multiroot.lab.artifacts import Artifact
from multiroot.lab.build import BootKernel, Built
from multiroot.lab.machine import emulator_argv
from multiroot.phases import Phases

_PROBE_SECONDS = 20.0
# With no initramfs a kernel that got that far panics and, with panic=-1, resets: the probe ends by itself.
_PROBE_SAYS = "Unable to mount root fs"


def choose(built: Built, phases: Phases) -> str:
    """ "kvm" or "tcg". The answer is kept per host kernel and emulator; a host without KVM is not asked
    twice.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) or not _nested():
        return "tcg"
    known = paths.make_dir(paths.cache_dir() / "probes") / f"{_key(built)}.json"
    if not known.exists():
        with phases.phase("probe KVM") as attributes:
            works = probe(built.emulator, next(iter(built.kernels.values())))
            attributes["works"] = works
        known.write_text(json.dumps({"kvm": works}) + "\n")
        paths.give_to_user(known)
    return "kvm" if json.loads(known.read_text())["kvm"] else "tcg"


def probe(emulator: Path, kernel: BootKernel) -> bool:
    """Whether a kernel boots under KVM, on two CPUs, to the point where it wants a file system."""
    options = ["-machine", "q35", "-accel", "kvm", "-cpu", "max", "-smp", "2", "-m", "512M"]
    boot = ["-kernel", str(kernel.vmlinuz), "-append", "console=ttyS0 panic=-1"]
    show = ["-serial", "stdio", "-display", "none"]
    try:
        done = proc.run(
            [*emulator_argv(emulator), *options, *boot, *show], check=False, timeout=_PROBE_SECONDS
        )
    except CommandError:
        return False
    return _PROBE_SAYS in done.stdout


def _nested() -> bool:
    """Whether the host's KVM lets its guests use KVM: the lab's roots need that."""
    flags = (Path("/sys/module") / module / "parameters/nested" for module in ("kvm_amd", "kvm_intel"))
    return any(flag.exists() and flag.read_text().strip() in ("1", "Y") for flag in flags)


def _key(built: Built) -> str:
    inputs = {"host": platform.release(), "emulator": str(built.emulator), "cpu": _cpu_model()}
    return Artifact("kvm", inputs, lambda _: None).key


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith("model name")), "")
