# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run's header says of where it ran."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from multiroot import __version__, arch, proc
from multiroot.bench.results.samples import Header
from multiroot.errors import CommandError
from multiroot.lab import paths
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab


def header(bench: str, seed: int, options: dict[str, Any], versions: dict[str, str]) -> Header:
    """The header of a run that begins now."""
    return Header(
        bench=bench,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=revision(),
        host=host(),
        versions={"multiroot": __version__, "python": platform.python_version(), **versions},
        load=round(os.getloadavg()[0], 2),
        seed=seed,
        options=options,
    )


def versions(machine: Lab, agents: Agents) -> dict[str, str]:
    """Of what runs in the lab machine."""
    qemu = machine.run([arch.current().lab.program, "--version"]).stdout.split("\n")[0]
    return {
        "old_kernel": agents.status(wait=True).kernel_release,
        "guest_qemu": qemu.removeprefix("QEMU emulator version "),
        "lab_accelerator": machine.state.machine.accelerator,
        "lab_image": machine.state.image_digest,
    }


def host() -> dict[str, Any]:
    """CPUs, their model, memory in bytes, kernel."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = len(os.sched_getaffinity(0))
    return {"cpus": cpus, "model": model, "memory_bytes": memory, "kernel": platform.release()}


def revision() -> str:
    """The source's git commit, with "+" when it was changed since; "unknown" outside of a clone, and where
    there is no git.
    """
    try:
        found = proc.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=paths.source_dir(), check=False)
        changed = proc.run(["git", "status", "--porcelain"], cwd=paths.source_dir(), check=False)
    except CommandError:
        return "unknown"
    if found.returncode:
        return "unknown"
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")
