# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel has to be built with (`qemu-lab/kernel-config.toml`), compared with what one was built with.

Pure, but for reading the file with the wishes: a .config's text in, what is missing and what that costs out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from multiroot.errors import BadRequestError
from multiroot.lab import paths, recipes
from multiroot.lab.recipes import Recipe

OFF = "n"
_SET = re.compile(r"^CONFIG_(\w+)=(.*)$")
_NOT_SET = re.compile(r"^# CONFIG_(\w+) is not set$")


class Option(Recipe):
    """One option; see the file. `unless` is one that makes up for the lack of it."""

    name: str = Field(pattern=r"^[A-Z0-9_]+$")
    value: Literal["y", "m", "n"] | Annotated[int, Field(strict=True, ge=1)]  # a number: at least
    without: str
    unless: str = ""

    def met(self, value: str) -> bool:
        """Whether an option that has `value` is as this one wants it."""
        if isinstance(self.value, int):
            return value.isdecimal() and int(value) >= self.value
        if self.value == OFF:
            return value == OFF
        return value == "y" or (value == "m" and self.value == "m")


class Feature(Recipe):
    """Something that a kernel can be or do."""

    what: str
    needed: bool = False
    slower: float = Field(1.0, ge=1)  # so many times as slow is a kernel that has the first option
    options: tuple[Option, ...] = Field(min_length=1)


class Small(Recipe):
    """What a small kernel is built without, and what it needs for options to be there at all."""

    off: tuple[str, ...] = ()
    on: tuple[str, ...] = ()


class Wishes(Recipe):
    """The file."""

    feature: dict[str, Feature]
    debug: dict[str, Feature] = Field(default_factory=dict)
    small: Small = Small()

    @model_validator(mode="after")
    def _one_value(self) -> Wishes:
        wanted: dict[str, str | int] = {}
        for option in (each for feature in self.feature.values() for each in feature.options):
            if (OFF in (option.value, wanted.get(option.name, option.value))) and (
                wanted.setdefault(option.name, option.value) != option.value
            ):
                raise ValueError(f"{option.name} is wanted both on and off")
            wanted[option.name] = option.value
        return self

    def chosen(self, names: Collection[str]) -> dict[str, Feature]:
        """The features called so, all without names. Raises BadRequestError."""
        _check_names("feature", names, self.feature)
        return {name: each for name, each in self.feature.items() if not names or name in names}

    def slowness(self, config: Mapping[str, str]) -> float:
        """How many times as long as usual a kernel may take for anything, by what it looks for in itself."""
        has = [
            each for each in self.debug.values() if each.options[0].met(config.get(each.options[0].name, OFF))
        ]
        return math.prod(each.slower for each in has)

    def debugging(self, names: Collection[str]) -> dict[str, Feature]:
        """What the kernel is to look for in itself; without it, the kernel is not what was asked for. Raises
        BadRequestError.
        """
        _check_names("way of debugging", names, self.debug)
        return {name: self.debug[name].model_copy(update={"needed": True}) for name in dict.fromkeys(names)}


def _check_names(kind: str, names: Collection[str], known: Mapping[str, object]) -> None:
    strange = sorted(set(names) - set(known))
    if strange:
        raise BadRequestError(f"no {kind} called {strange[0]!r}", f"there is {', '.join(known)}")


@dataclass(frozen=True)
class Lack:
    """An option that is not as a feature wants it. `value` is what it is, "n" if it is not there at all."""

    feature: str
    option: Option
    value: str
    needed: bool

    def __str__(self) -> str:
        wanted = f"CONFIG_{self.option.name}={self.option.value}"
        return f"{wanted} is {'on' if self.option.value == OFF else self.value}: {self.option.without}"


def wishes() -> Wishes:
    """What the project's file asks for."""
    return recipes.read(paths.recipes_dir() / "kernel-config.toml", Wishes)


def parse(text: str, name: object = ".config") -> dict[str, str]:
    """The options in a .config's text. Raises BadRequestError for a file that is none."""
    found = settings(text)
    if not found:
        raise BadRequestError(f"{name} is no kernel configuration", "give a .config, or /boot/config-RELEASE")
    return found


def settings(text: str) -> dict[str, str]:
    """The options in a .config's text, or a fragment's."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.match(line):
            found[match[1]] = match[2]
        elif match := _NOT_SET.match(line):
            found[match[1]] = OFF
    return found


def check(config: Mapping[str, str], features: Mapping[str, Feature]) -> list[Lack]:
    """What is not as the features want it, in their order."""
    return [
        Lack(name, option, config.get(option.name, OFF), feature.needed)
        for name, feature in features.items()
        for option in feature.options
        if not option.met(config.get(option.name, OFF)) and config.get(option.unless) != "y"
    ]


def fragment(features: Mapping[str, Feature], small: Small | None = None, *, built_in: bool = False) -> str:
    """What to merge into a .config (scripts/kconfig/merge_config.sh) for the features; with `small`, all that
    a small kernel is built with, too. `built_in`: nothing is a module, and some options are by others.
    """
    values: dict[str, str | int] = {}
    if small:
        values |= dict.fromkeys(small.off, OFF) | dict.fromkeys(small.on, "y")
    for option in (each for feature in features.values() for each in feature.options):
        if built_in and option.unless:
            values |= {option.name: OFF, option.unless: "y"}
            continue
        strongest = "y" if "y" in (option.value, values.get(option.name)) else option.value
        values[option.name] = "y" if built_in and strongest == "m" else strongest
    return "".join(
        f"# CONFIG_{name} is not set\n" if value == OFF else f"CONFIG_{name}={value}\n"
        for name, value in sorted(values.items())
    )
