# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trial leaves to be judged: which kernels ran, and what they and the guest have said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
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
from multiroot.verdict.findings import Finding, Source, boots, find
from multiroot.verdict.symbols import Symbols, symbolised
from multiroot.workbench import look
from multiroot.workbench.look import Image
from multiroot.workbench.reached import THE_GUEST, Reached, Started, told_there
from multiroot.workbench.trial_report import Trial
from multiroot.workbench.wanted import Wanted

BACKTRACES = "backtraces-new.txt"
GUEST = "vm1"
GUEST_BOOT = "the guest runs"


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

    @property
    def _failed(self) -> bool:
        return any(not each.held for each in self.trial.steps)

    def identify(self, started: Started, root: str) -> None:
        """Note which image was asked for there and which one runs; it is reached by `root`."""
        told = look.facts(look.in_root(self._lab, root))
        booted = started is self.reached.started[0]
        ran = look.ran_old(self._lab, told) if booted else look.ran_new(self._lab, started.kernel, told)
        asked = self._asked(started.kernel)
        self.trial.identities.append(look.Identity(started.console, asked, ran, started.called))

    def ask(self, root: str) -> None:
        """Have a living root tell what it is tainted by, and look for leaks. After it has ended nobody can.
        Raises MultirootError.
        """
        started = self.reached.living[root]
        boot = max(1, told_there(self.machine.state, started.console))
        self._ask(look.in_root(self._lab, root), started.called, Source(started.console, "", boot))

    def _ask(self, ask: look.Ask, called: str, source: Source) -> None:
        facts = look.facts(ask)
        source = replace(source, release=facts.release)
        self.trial.answers[called] = look.Answer(called, source, facts, look.leaks(ask, source))

    def _asked(self, name: str) -> Image:
        kernel = self.built.kernels[name]
        sha256 = look.sha256_of(kernel.vmlinuz)
        artifacts = lab.cache(self.phases)
        return Image(
            name, kernel.release, sha256, _build_id(name, sha256, kernel.vmlinuz.read_bytes, artifacts)
        )

    def collect(self) -> None:
        """What the kernels have said, from whoever still answers, and from whoever has answered before."""
        with self.phases.phase(PhaseName.COLLECT):
            guest: list[Finding] = []
            if self._alive and not self.reached.lost:
                guest = self._ask_the_living()
            if self._alive and (self.reached.lost or (self._failed and not self.reached.guest_lost)):
                # There may be no new root, or it was the old one that was lost: then nobody can be asked.
                with suppress(MultirootError):
                    self.trial.backtraces = look.backtraces(self._lab)
            found = [*look.consoles(self.machine.state), *guest]
            for each in self.trial.answers.values():
                found += [*look.taints(each, found), *each.scan.found]
            self.trial.listened[:0] = ["old", *(["new"] if self._new_spoke() else [])]
            self.trial.resets = state.load(self.machine.name).resets()
        found = apply(found, self.wanted.allow)
        with self.phases.phase(PhaseName.LINES_OF_SOURCE, findings=len(found)):
            self.trial.findings = symbolised(found, self._symbols()) if found else []

    def _new_spoke(self) -> bool:
        """A console may be quiet; then what the root itself has told is judged under its name."""
        told = any(each.source.where == "new" for each in self.trial.answers.values())
        return told or bool(console_text(self.machine.state, "new").strip())

    def _ask_the_living(self) -> list[Finding]:
        """The roots; what the guest has said."""
        # After a step that did not hold, a root need not answer any more; else that is an error.
        tolerant = suppress(MultirootError) if self._failed else nullcontext()
        for root in self.reached.living:
            with tolerant:
                self.ask(root)
        if GUEST_BOOT in (each.name for each in self.trial.steps):
            with tolerant:
                return self._ask_guest()
        return []

    def _ask_guest(self) -> list[Finding]:
        """What its console says; it tells more itself if it takes commands."""
        running = None if self.reached.alone else "new" if self.reached.second else "old"
        said = look.guest_console(self._lab, GUEST, running).decode(errors="replace").splitlines()
        self.trial.listened.append(GUEST)
        if self.reached.reach_guest and not self.reached.guest_lost:
            source = Source(GUEST, "", max(1, boots(said)))
            try:
                self._ask(look.in_guest(self.reached.reach_guest), THE_GUEST, source)
            except MultirootError as error:
                # What ran in it may have ended it, and may do so.
                none = look.Scan(why_none=f"it does not answer: {error.message}")
                self.trial.answers[THE_GUEST] = look.Answer(THE_GUEST, source, look.UNKNOWN, none)
        return find(said, GUEST)

    def _symbols(self) -> Callable[[Source], Symbols | None]:
        """By who spoke. If that may be one of several kernels, its release decides, or else nobody can tell
        whose function it was.
        """
        given = {each.name: each for each in lab.own_kernels(self.wanted.lab)}
        symbols = {name: _symbols_of(each) for name, each in given.items()}

        def of(source: Source) -> Symbols | None:
            names = self.reached.kernels_of(source)
            if len(names) > 1:
                names = {each for each in names if self.built.kernels[each].release == source.release}
            return symbols.get(names.pop()) if len(names) == 1 else None

        return of

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
