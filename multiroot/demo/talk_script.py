# SPDX-License-Identifier: GPL-2.0-or-later
"""The script of a talk: a TOML file that says what is done on stage, what is said, and where one waits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from multiroot import toml_files
from multiroot.errors import BadRequestError
from multiroot.lab import model_errors
from multiroot.lab.recipes import Recipe, Size
from multiroot.units import MIB

Deed = Literal["", "launch", "handoff", "back", "abort", "crash", "retire", "next"]
SAMPLE = "qemu-lab/talk.toml"


class Part(Recipe):
    """One step: first `say` is shown, then `pause` waits for a key, then `do` is done, then `wait` passes."""

    do: Deed = ""
    say: str = Field(default="", max_length=200)
    kernel: str = ""  # of launch and next; "": new_kernel
    pause: bool = False
    wait: float = Field(default=0, ge=0, le=600)  # seconds


class Talk(Recipe):
    """A whole talk, from a machine with its VMs on."""

    title: str = ""
    old_kernel: str = "6.12"
    new_kernel: str = "6.12"
    vms: int = Field(default=1, ge=1, le=16)
    vm_memory: Size = 256 * MIB
    step: tuple[Part, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_order(self) -> Talk:
        there = Standing()
        for number, part in enumerate(self.step, 1):
            if part.kernel and part.do not in ("launch", "next"):
                raise ValueError(f"step {number}: only launch and next start a kernel")
            there = there.after(part.do, number)
        return self

    @property
    def kernels(self) -> tuple[str, ...]:
        """All that are started beside the first."""
        started = [part for part in self.step if part.do in ("launch", "next")]
        return tuple(dict.fromkeys(part.kernel or self.new_kernel for part in started))


class Standing:
    """Where roots and VMs are after some steps: whether there is a new root, and whether it has the VMs."""

    def __init__(self, new: bool = False, over: bool = False, crashed: bool = False) -> None:
        self.new = new
        self.over = over
        self.crashed = crashed

    def after(self, deed: Deed, number: int) -> Standing:
        """Raises ValueError, which names the step, for what can't be done there."""
        if deed in ("launch", "next") and self.new:
            raise ValueError(f"step {number}: {deed} needs a machine with one root; abort or retire first")
        if deed in ("handoff", "back", "abort", "crash", "retire") and not self.new:
            raise ValueError(f"step {number}: {deed} needs a new root; launch one first")
        if deed in ("handoff", "back", "crash", "retire") and self.crashed:
            raise ValueError(f"step {number}: the new root has crashed; abort first")
        if deed == "handoff" and self.over:
            raise ValueError(f"step {number}: the VMs are in the new root already")
        if deed == "back" and not self.over:
            raise ValueError(f"step {number}: no VM is in the new root")
        if deed == "crash" and self.over:
            raise ValueError(
                f"step {number}: the new root has the VMs, and they would be lost; go back first"
            )
        match deed:
            case "launch":
                return Standing(new=True)
            case "handoff" | "back":
                return Standing(new=True, over=deed == "handoff")
            case "crash":
                return Standing(new=True, crashed=True)
            case "abort" | "retire" | "next":
                return Standing()
        return self


def read(path: Path) -> Talk:
    """The talk in a file; raises BadRequestError that names what is wrong in it."""
    try:
        return Talk.model_validate(toml_files.read(path))
    except FileNotFoundError as error:
        raise BadRequestError(f"there is no {path}", f"{SAMPLE} is a talk to begin with") from error
    except ValidationError as error:
        _, _, told = model_errors.first(error)
        raise BadRequestError(f"{path} is no talk: {told}") from error
