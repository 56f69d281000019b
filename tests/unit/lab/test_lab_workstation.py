# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated workstation: its cache answers what the lab asks, its machine is as its recipe says."""

from __future__ import annotations

from pathlib import Path

from multiroot.lab import recipes, workstation
from multiroot.lab.artifacts import Artifact
from multiroot.lab.build import BootKernel, Built
from multiroot.lab.cache import Cache
from multiroot.lab.workstation import Noted, WorkstationParts
from multiroot.phases import Phases
from multiroot.units import GIB, MIB


def one(name: str, *files: str) -> Artifact:
    def build(out: Path) -> None:
        for file in files:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(f"{name} {file}")

    return Artifact(name, {}, build)


def built_lab(folder: Path) -> tuple[Noted, Built]:
    """A lab of one kernel, and the cache that was asked for it."""
    cache = Noted(folder, Phases("workstation"))
    image = cache.ensure(one("image", "system.erofs"))
    emulator = cache.ensure(one("root-emulator", "tree/bin/qemu"))
    kernel = cache.ensure(one("kernel-6.12", "vmlinuz", "release", "config", "lib/modules/big"))
    initrd = cache.ensure(one("initramfs-6.12", "initrd"))
    mend = cache.ensure(one("program-svm", "svm"))
    cache.ensure(one("root-kernel-6.12", "tree/usr/bin/gcc"))
    boot = BootKernel("6.12", "6.12.1", kernel / "vmlinuz", initrd / "initrd")
    built = Built(emulator / "tree", mend / "svm", image / "system.erofs", "digest", {"6.12": boot})
    return cache, built


def test_the_cache_inside_has_everything_and_the_files_of_what_runs(tmp_path: Path) -> None:
    cache, built = built_lab(tmp_path / "cache")
    workstation.stage_lab(tmp_path / "stage", sorted(cache.noted), built, cache.root)
    inside = Cache(tmp_path / "stage", Phases("inside"))
    assert all(inside.has(each) for each in cache.noted.values())
    files = {str(path.relative_to(tmp_path / "stage")) for path in inside.root.rglob("*") if path.is_file()}
    assert {file.partition("/")[2] for file in files} == {
        "system.erofs",
        "tree/bin/qemu",
        "vmlinuz",
        "release",
        "config",
        "initrd",
        "svm",
    }


def test_the_machine_is_as_its_recipe_says(tmp_path: Path) -> None:
    _, built = built_lab(tmp_path / "cache")
    image = tmp_path / "workstation.erofs"
    with image.open("wb") as file:
        file.truncate(GIB + 2 * MIB)
    parts = WorkstationParts(recipes.workstation(), built, image)
    argv = workstation.argv(parts, Path("/a,b"), Path("/console"), Path("/verdicts"))
    said = {argv[at]: argv[at + 1] for at in range(argv.index("-name"), len(argv), 2)}
    memory = parts.recipe.memory // MIB
    assert said["-m"] == f"{memory}M,slots=1,maxmem={memory + 3 * 1024}M"
    assert said["-smp"] == str(parts.recipe.cpus)
    assert said["-fw_cfg"] == "name=opt/multiroot/arguments,file=/a,,b"
    assert "-netdev" not in said
    assert [word for word in argv if word.startswith("chardev:")] == ["chardev:console", "chardev:verdicts"]
