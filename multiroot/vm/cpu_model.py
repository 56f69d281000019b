# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's CPU as its definition has it: a model, and features behind commas.

"host" is what the root has where the VM starts, each time anew. "frozen" is what the root has where the VM
first starts, as far as the oldest root knows it, too: so the VM can go from a new kernel to an old one. From
then on its definition says it all, with a model that has nothing of its own, "base", and every feature by
name. So it is with any other model, but nothing is left out of what that one has.
"""

from __future__ import annotations

import re

from multiroot.errors import BadRequestError
from multiroot.vm.fields import check_given_once

HOST = "host"
FROZEN = "frozen"
BASE = "base"

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FEATURE = re.compile(r"([a-z0-9][a-z0-9._-]*)=([^,]+)")
# What says how a feature that is missing is dealt with, and not which there are.
_FIXED = {"check", "enforce", "migratable", "x-force-features"}

Value = bool | int | str


def parse(cpu: str) -> tuple[str, dict[str, Value]]:
    """The model and the features given; raises BadRequestError, naming the first thing wrong."""
    model, *words = cpu.split(",")
    if not _MODEL.fullmatch(model):
        raise BadRequestError(f"not a CPU model: {model!r}", "write it like host, frozen, or EPYC,svm=off")
    features: dict[str, Value] = {}
    for word in words:
        found = _FEATURE.fullmatch(word)
        if not found or not word.isprintable():
            raise BadRequestError(f"not a CPU feature: {word!r}", "write it like svm=off")
        name, value = found.groups()
        if name in _FIXED:
            raise BadRequestError(
                f"the CPU option {word!r} is not yours to set",
                "leave it out: it says how QEMU starts, not what a CPU has",
            )
        features[name] = _value(value)
    check_given_once(words, cpu)
    return model, features


def _value(text: str) -> Value:
    if text in ("on", "off"):
        return text == "on"
    return int(text) if text.isascii() and text.isdecimal() else text


def is_written_out(cpu: str) -> bool:
    """Whether it means the same in every root."""
    return cpu.startswith(f"{BASE},")


def follows_the_root(cpu: str) -> bool:
    """Whether it is whatever the root has where the VM starts; the definition never says what that is."""
    return cpu.partition(",")[0] == HOST


def check_given(cpu: str, given: str) -> None:
    """Raises BadRequestError unless `given` says what a guest with the CPU `cpu` got where it started, which
    is to be said of one that follows the root, and of no other.
    """
    if follows_the_root(cpu) != is_written_out(given):
        raise BadRequestError(f"what CPU a guest with {cpu.partition(',')[0]!r} has does not come with it")
    if given:
        parse(given)


def summary(cpu: str) -> str:
    """For a person, who does not read a hundred features in a row."""
    if not is_written_out(cpu):
        return cpu
    _, features = parse(cpu)
    count = sum(value is True for value in features.values())
    return f"{features.get('model-id', 'a CPU')}, {count} features; all of them: --toml"
