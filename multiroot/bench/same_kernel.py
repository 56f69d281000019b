# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways of taking a VM from one QEMU to another within one kernel."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from multiroot.bench.results.samples import Sample, variant_name
from multiroot.bench.workload import BOOT_TIMEOUT_S
from multiroot.errors import CommandError
from multiroot.lab.execution import Conversation
from multiroot.lab.lab import Lab
from multiroot.phases import Phase

ANSWER_TIMEOUT_S = 300.0


class SameKernelVm:
    """The one VM of all that happens within the old root's kernel, and the program that drives it there."""

    def __init__(self, lab: Lab, **definition: Any) -> None:
        self.name = str(definition["name"])
        self._lab = lab
        self._definition = definition
        self._driver: Conversation | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Raises CommandError with the driver's words when it failed."""
        request = json.dumps({"do": do, **arguments})
        timeout_s = BOOT_TIMEOUT_S if do == "start" else ANSWER_TIMEOUT_S
        answer: dict[str, Any] = json.loads(self._running().ask(request, timeout_s))
        if "error" in answer:
            raise CommandError(answer["error"])
        return answer

    def say(self, do: str) -> None:
        """For what is never answered."""
        self._running().say(json.dumps({"do": do}))

    def _running(self) -> Conversation:
        if self._driver is None:
            self._driver = Conversation(
                self._lab.channel("old"), ["python3", "-m", "multiroot.bench.in_root.driver"]
            )
            self.ask("start", **self._definition)
            self.ask("pause")
        return self._driver

    def close(self) -> None:
        """End it, and the VM."""
        if self._driver is not None:
            self._driver.end(ANSWER_TIMEOUT_S)
            self._driver = None


class SameKernel:
    """One of the ways in `names.SAME_KERNEL`, or in `names.OF_ITS_OWN`.

    The former share a VM, one for each `kind` when there are several.
    """

    def __init__(self, way: str, vm: SameKernelVm, kind: str = "") -> None:
        self.name = variant_name(way, kind)
        self.seen_ns: list[int] = []  # when the last ticks were seen, ns on the machine-wide clock
        self._way = way
        self._vm = vm

    def prepare(self) -> None:
        self._vm.ask("pause")

    def sample(self) -> list[Sample]:
        self._vm.ask("go")
        try:
            sample = self.measure()
        except CommandError:
            # Why it failed is what counts, also when that was the end of its QEMU.
            with suppress(CommandError):
                self._vm.ask("pause")
            raise
        self._vm.ask("pause")
        return [sample]

    def measure(self) -> Sample:
        """Of the VM that runs."""
        measured = self._vm.ask("sample", way=self._way)
        self.seen_ns = measured.pop("seen_ns")
        phases = [
            Phase(name, "", start_ns, length, blackout=True)
            for name, start_ns, length in measured.pop("phases")
        ]
        return Sample(self.name, 0, measured, tuple(phases))

    def close(self) -> None:
        self._vm.close()
