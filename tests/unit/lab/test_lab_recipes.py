# SPDX-License-Identifier: GPL-2.0-or-later
"""Recipes in qemu-lab/: ours are valid, wrong ones give one line that names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.errors import BadRequestError
from multiroot.lab import paths, recipes
from multiroot.lab.recipes import KernelRecipes, MachineRecipe
from multiroot.units import GIB, MIB

GOOD = (paths.recipes_dir() / "machines/default.toml").read_text()


def write(folder: Path, text: str) -> Path:
    path = folder / "machine.toml"
    path.write_text(text)
    return path


MACHINES = sorted(path.stem for path in (paths.recipes_dir() / "machines").glob("*.toml"))


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_of_ours_is_valid(name: str) -> None:
    machine = recipes.machine(name)
    assert 0 in machine.old_cpus
    assert len(machine.old_cpus) < machine.cpus


def test_our_kernels_and_roots_are_valid() -> None:
    kernels = recipes.kernels().kernel
    assert [each.name for each in kernels] == ["6.1", "6.12", "6.12-full", "6.1-rt", "6.12-rt", "7.x"]
    assert [each.name for each in kernels if each.on_demand] == ["6.12-full", "6.1-rt", "6.12-rt"]
    assert {each.flavour for each in kernels if each.name.endswith("-rt")} == {"rt"}
    assert "qemu-system-x86" in recipes.roots().emulator.packages


def test_sizes_and_cpu_lists_are_read() -> None:
    machine = recipes.machine("default")
    assert (machine.carve, machine.vm_memory, machine.old_cpus) == (GIB, 256 * MIB, (0, 1))


def test_overrides_beat_the_file() -> None:
    machine = recipes.machine("default", {"cpus": 8, "carve": 2 * GIB})
    assert (machine.cpus, machine.carve) == (8, 2 * GIB)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('carve = "1G"', 'carve = "1Q"', "carve: .*not a size: '1Q'"),
        ('carve = "1G"', "", "carve is missing"),
        ('carve = "1G"', 'carve = "1G"\ncolour = "red"', "colour is no key here"),
        ("cpus = 4", "cpus = 1", "cpus must be at least 2"),
        ('old_cpus = "0-1"', 'old_cpus = "1"', "must keep CPU 0"),
        ('old_cpus = "0-1"', 'old_cpus = "0-3"', "leave some of the 4 CPUs"),
        ('old_cpus = "0-1"', 'old_cpus = "0-x"', "not a CPU list"),
        ("cpus = 4", "cpus = ", "not valid TOML"),
    ],
)
def test_a_wrong_machine_is_one_clear_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(BadRequestError, match=says) as error:
        recipes.read(write(tmp_path, GOOD.replace(old, new, 1)), MachineRecipe)
    assert error.value.message.startswith(str(tmp_path / "machine.toml"))
    assert "\n" not in error.value.message


def test_a_machine_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD.replace("cpus = 4", "cpus = 6", 1))
    assert recipes.machine(str(path)).cpus == 6
    assert recipes.machine(str(path), {"cpus": 8}).cpus == 8
    monkeypatch.chdir(tmp_path)
    assert recipes.machine("machine.toml").cpus == 6
    with pytest.raises(BadRequestError, match=r"no recipe other\.toml"):
        recipes.machine(str(tmp_path / "other.toml"))
    with pytest.raises(BadRequestError, match=r"cannot read .*: Is a directory"):
        recipes.machine(f"{tmp_path}/")


def test_an_unknown_machine_names_those_there_are() -> None:
    with pytest.raises(BadRequestError, match=r"default, .*hotplug"):
        recipes.machine("toaster")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('guest = "5.10"\n[[kernel]]\nname = "6.1"\nsuite = "s"\n', "guest kernel 5.10 is not among 6.1"),
        ('guest = "6.1"\n' + '[[kernel]]\nname = "6.1"\nsuite = "s"\n' * 2, "same name"),
        ('guest = "6.1"\n[[kernel]]\nname = "../x"\nsuite = "s"\n', "kernel.0.name"),
    ],
)
def test_wrong_kernel_lists(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        recipes.read(write(tmp_path, text), KernelRecipes)
