# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the workstation: can it build a lab and run it? Nothing is changed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from multiroot import proc
from multiroot.doctor.checks import Answer, Check, failed, ok, warning
from multiroot.lab import accel, paths, recipes
from multiroot.units import GIB, MIB

# All trees and one image take about 4 GiB; with those there, a change of ours makes one image more.
DISK_NEEDED = 5 * GIB
DISK_MORE = 1 * GIB
MEMORY_SPARE = 512 * MIB
_PROGRAMS = ("mmdebstrap", "dpkg-deb", "gcc", "make", "unshare", "chroot")
_SETUP = "'make setup' installs it"


class WorkstationDoctor:
    """The checks, by id. `top` has /proc and /dev; `cache` is where the lab's artifacts are."""

    def __init__(self, top: Path = Path("/"), cache: Path | None = None) -> None:
        self._top = top
        self._cache = cache or paths.cache_path() / "lab"

    def checks(self) -> list[tuple[str, Check]]:
        return [
            ("python", self._python),
            ("packages", self._packages),
            ("root", self._root),
            ("source", self._source),
            ("recipes", self._recipes),
            ("cache", self._cached),
            ("disk", self._disk),
            ("memory", self._memory),
            ("cpus", self._cpus),
            ("accelerator", self._accelerator),
        ]

    def _python(self) -> Answer:
        version = ".".join(map(str, sys.version_info[:3]))
        return ok(f"Python {version} in {sys.prefix}")

    def _packages(self) -> Answer:
        missing = [program for program in _PROGRAMS if not proc.find(program)]
        if missing:
            return failed(f"not found: {', '.join(missing)}", _SETUP)
        return ok(", ".join(_PROGRAMS))

    def _root(self) -> Answer:
        if os.geteuid() == 0:
            return ok("root: the lab's trees can be built")
        return warning(
            "not root: a lab can be run, but its trees can't be built", "'sudo make lab' builds them once"
        )

    def _source(self) -> Answer:
        return ok(str(paths.source_dir()))

    def _recipes(self) -> Answer:
        recipes.roots()
        machines = sorted(path.stem for path in (paths.recipes_dir() / "machines").glob("*.toml"))
        for machine in machines:
            recipes.machine(machine)
        kernels = [kernel.name for kernel in recipes.kernels().kernel]
        return ok(f"machines {', '.join(machines)}; kernels {', '.join(kernels)}")

    def _images(self) -> int:
        return sum(path.is_dir() for path in self._cache.glob("image-*"))

    def _cached(self) -> Answer:
        images = self._images()
        if images:
            return ok(f"{images} system images in {self._cache}")
        return warning(f"nothing is built in {self._cache}", "'make lab' builds it, some minutes")

    def _disk(self) -> Answer:
        folder = next(path for path in (self._cache, *self._cache.parents) if path.is_dir())
        free = shutil.disk_usage(folder).free
        needed = DISK_MORE if self._images() else DISK_NEEDED
        said = f"{free / GIB:.1f} GiB free for {self._cache}, {needed / GIB:.0f} GiB needed"
        if free >= needed:
            return ok(said)
        return failed(said, "remove what is old there, or set XDG_CACHE_HOME")

    def _memory(self) -> Answer:
        fields = dict(
            line.split(":") for line in (self._top / "proc/meminfo").read_text().splitlines() if ":" in line
        )
        available = int(fields["MemAvailable"].split()[0]) * 1024
        machine = recipes.machine("default")
        needed = machine.old_memory + machine.carve + machine.vms * machine.vm_memory + MEMORY_SPARE
        said = f"{available / GIB:.1f} GiB available, a usual lab machine takes up to {needed / GIB:.1f} GiB"
        return (
            ok(said) if available >= needed else warning(said, "end other labs, or choose a smaller --carve")
        )

    def _cpus(self) -> Answer:
        count = len(os.sched_getaffinity(0))
        if count >= 2:
            return ok(f"{count} CPUs")
        return warning("1 CPU: two kernels will take turns on it", "everything works, slowly")

    def _accelerator(self) -> Answer:
        if not os.access(self._top / "dev/kvm", os.R_OK | os.W_OK):
            return ok("TCG (no /dev/kvm to use here); roots and guests run all the same")
        problem = accel.nesting_problem(self._top / "sys/module")
        if not problem:
            return ok("KVM with nesting; used when a probe boot works, see 'multiroot lab status'")
        return warning("TCG: this host's KVM does not let its guests use KVM", problem.hint)
