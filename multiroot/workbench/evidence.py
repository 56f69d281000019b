# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trial leaves to be judged: which kernels ran, and what they and the guest have said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import MultirootError
from multiroot.lab import kernels, lab, paths, state
from multiroot.lab.boot import QEMU_LOG
from multiroot.lab.build import Built
from multiroot.lab.cache import Cache
from multiroot.lab.lab import Lab
from multiroot.lab.machine import Machine
from multiroot.lab.own_kernel import KernelSource
from multiroot.lab.recorder import EVENTS_LOG, console_log, console_text
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.verdict.allow import apply
from multiroot.verdict.findings import Finding
from multiroot.verdict.symbols import Symbols, symbolised
from multiroot.workbench import look
from multiroot.workbench.look import Image
from multiroot.workbench.trial_report import Trial
from multiroot.workbench.wanted import Wanted

BACKTRACES = "backtraces-new.txt"
GUEST = "vm1"
GUEST_BOOT = "the guest runs"


@dataclass
class Reached:
    """How far a trial has come. `launched`: a new root has been started, and the old one is still there.
    `alone`: the old root has retired. `lost`: a root died or stands still, so nobody is asked any more.
    """

    lab: Lab | None = None
    launched: bool = False
    alone: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Evidence:
    """Writes to `trial` what can be known by now."""

    wanted: Wanted
    trial: Trial
    phases: Phases
    machine: Machine
    built: Built
    reached: Reached

    @property
    def _lab(self) -> Lab:
        assert self.reached.lab
        return self.reached.lab

    @property
    def _alive(self) -> bool:
        return self.reached.lab is not None and self.reached.lab.state.alive()

    def identify(self, where: str, name: str, root: str = "") -> None:
        """Note which image was asked for there and which one runs."""
        told = look.facts(self._lab, root or where)
        ran = look.ran_old(self._lab, told) if where == "old" else look.ran_new(self._lab, name, told)
        asked = self._asked(name)
        self.trial.identities.append(look.Identity(where, asked, ran))

    def _asked(self, name: str) -> Image:
        kernel = self.built.kernels[name]
        sha256 = look.sha256_of(kernel.vmlinuz)
        artifacts = lab.cache(self.phases)
        return Image(
            name, kernel.release, sha256, _build_id(name, sha256, kernel.vmlinuz.read_bytes, artifacts)
        )

    def collect(self) -> None:
        """What the kernels have said, from whoever still answers."""
        found: list[Finding] = []
        with self.phases.phase(PhaseName.COLLECT):
            folder = self.machine.state
            found += look.consoles(folder)
            self.trial.listened = ["old", *(["new"] if self._new_spoke() else [])]
            if self._alive and not self.reached.lost:
                found += self._ask_the_living(found)
            elif self._alive and self.reached.launched:
                # The old root may be the one that was lost: then nobody can be asked.
                with suppress(MultirootError):
                    self.trial.backtraces = look.backtraces(self._lab)
            self.trial.resets = state.load(self.machine.name).resets()
        found = apply(found, self.wanted.allow)
        with self.phases.phase(PhaseName.LINES_OF_SOURCE, findings=len(found)):
            self.trial.findings = symbolised(found, self._symbols()) if found else []

    def _new_spoke(self) -> bool:
        return bool(console_text(self.machine.state, "new").strip())

    def _ask_the_living(self, found: list[Finding]) -> list[Finding]:
        more: list[Finding] = []
        # After a step that did not hold, a root need not answer any more; else that is an error.
        failed = any(not each.held for each in self.trial.steps)
        tolerant = suppress(MultirootError) if failed else nullcontext()
        # A root that is alone is reached where the old one was.
        launched = {"new": "new"} if self.reached.launched else {}
        names = {"new": "old"} if self.reached.alone else {"old": "old", **launched}
        for root, name in names.items():
            with tolerant:
                more += look.taints(root, look.facts(self._lab, name), found)
                scan = look.leaks(self._lab, name, root)
                self.trial.leaks[root] = scan.why_none
                more += scan.found
        if GUEST_BOOT in (each.name for each in self.trial.steps):
            with tolerant:
                running = None if self.reached.alone else "new" if self.reached.launched else "old"
                more += look.guest(self._lab, GUEST, running)
                self.trial.listened.append(GUEST)
        return more

    def _symbols(self) -> dict[str, Symbols]:
        """By release; of two kernels of one release neither, for nobody can tell whose function it was."""
        given = self.wanted.lab.all_kernels
        sources = {each.name: each for each in lab.own_kernels(self.wanted.lab)}
        known: dict[str, list[KernelSource]] = {}
        for text in dict.fromkeys(given):
            if source := sources.get(lab.kernel_name(text)):
                known.setdefault(source.release, []).append(source)
        return {release: _symbols_of(only[0]) for release, only in known.items() if len(only) == 1}

    def keep_logs(self, folder: Path) -> None:
        """Copy what the machine's consoles and its emulator have said."""
        paths.make_dir(folder)
        for name in (console_log("old"), console_log("new"), QEMU_LOG, EVENTS_LOG):
            if (self.machine.state / name).exists():
                shutil.copy(self.machine.state / name, folder)
        if self.trial.backtraces:
            (folder / BACKTRACES).write_text("\n".join(self.trial.backtraces) + "\n")


def _build_id(name: str, sha256: str, image: Callable[[], bytes], artifacts: Cache) -> str:
    from multiroot.lab.build import emulator_artifact

    made = kernels.build_id_artifact(name, sha256, image, emulator_artifact(), artifacts)
    return (artifacts.ensure(made) / kernels.BUILD_ID).read_text().strip()


def _symbols_of(source: KernelSource) -> Symbols:
    """The files of a build; modules that are installed have no debug information."""
    built = () if source.installed else source.modules()
    return Symbols(source.vmlinux, {place.stem.replace("-", "_"): path for path, place in built})
