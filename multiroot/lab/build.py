# SPDX-License-Identifier: GPL-2.0-or-later
"""How everything is built, in an order that keeps two things going at a time; what is in the cache is
not touched.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import BadRequestError
from multiroot.lab import guests, image, initramfs, kernel_config, kernels, paths, pylayer, recipes, roots
from multiroot.lab.artifacts import Artifact
from multiroot.lab.cache import Cache
from multiroot.lab.image import KernelParts, Parts
from multiroot.lab.kernels import Kernel
from multiroot.lab.own_kernel import KernelSource

_JOBS = 2
_KEEP_IMAGES = 6


@dataclass(frozen=True)
class BootKernel:
    """What the machine needs to boot a kernel. `slowness` is how many times as long as usual it may take."""

    name: str
    release: str
    vmlinuz: Path
    initrd: Path
    slowness: float = 1.0


@dataclass(frozen=True)
class Built:
    """A lab that is ready to run: the emulator's tree and what mends it, the system image, the kernels by
    name, oldest first.
    """

    emulator: Path
    emulator_mend: Path
    image: Path
    image_digest: str
    kernels: dict[str, BootKernel]


@dataclass(frozen=True)
class _Roots:
    emulator: Artifact
    system: Artifact
    kernels: dict[str, Artifact]

    @classmethod
    def from_recipes(cls, demanded: Collection[str] = ()) -> _Roots:
        """All trees, those of on-demand kernels only if they are demanded."""
        recipe = recipes.roots()
        wanted = [each for each in recipes.kernels().kernel if not each.on_demand or each.name in demanded]
        return cls(
            emulator_artifact(),
            roots.artifact("system", recipe.system),
            {each.name: kernels.root_artifact(each, recipe.for_kernel(each.flavour)) for each in wanted},
        )

    def all(self) -> list[Artifact]:
        return [self.emulator, self.system, *self.kernels.values()]


def build(
    cache: Cache,
    own: Sequence[KernelSource] = (),
    demanded: Collection[str] = (),
    guest_kernels: Collection[str] = (),
) -> Built:
    """Build whatever is missing. `own` are kernels to have in the image beside the lab's, by their own names;
    `demanded` are names, those of on-demand kernels among which are built too. `guest_kernels` are names of
    those that guests are made of beside the lab's (`guests.image`).
    """
    made = _Roots.from_recipes(demanded)
    with ThreadPoolExecutor(_JOBS) as pool:
        if os.geteuid() != 0 and not all(cache.has(each) for each in made.all()):
            raise BadRequestError(
                "building the lab needs root", "run 'multiroot lab build' through sudo once"
            )
        list(pool.map(cache.ensure, made.all()))
        extension = pylayer.extension_artifact()
        python = [
            pylayer.dependencies_artifact(made.system, cache),
            extension,
            pylayer.package_artifact(made.system, cache),
        ]
        pythons = pool.map(cache.ensure, python)
        debian = {
            name: kernels.debian_artifact(name, root, made.emulator, cache)
            for name, root in made.kernels.items()
        }
        ready = [
            *_open_all(cache, pool, debian),
            *(
                kernels.opened(each.name, kernels.source_artifact(each, made.emulator, cache), cache)
                for each in own
            ),
        ]
        against: dict[str, Artifact | KernelSource] = {**made.kernels, **{each.name: each for each in own}}
        parts = [_parts(kernel, against[kernel.name], made.emulator, cache) for kernel in ready]
        usual = recipes.kernels().guest
        of_guests = [each for each in ready if each.name == usual or each.name in guest_kernels]
        programs = [
            guests.program_artifact(paths.recipes_dir() / f"image/{each}.c", made.emulator, cache)
            for each in ("execd", "kvmkeys")
        ]
        mend = guests.program_artifact(
            paths.recipes_dir() / "emulator/svm.c", made.emulator, cache, library=True
        )
        tickers = [
            made_of
            for each in of_guests
            for made_of in (
                guests.ticker_artifact(guests.image(guests.TICKER, each.name), each, made.emulator, cache),
                guests.commands_artifact(
                    guests.image(guests.COMMANDS, each.name), each, programs[0], made.emulator, cache
                ),
            )
        ]
        names = {each.name: each.guest for each in recipes.kernels().kernel if each.guest}
        tickers += [
            guests.ticker_artifact(names[each.name], each, made.emulator, cache)
            for each in ready
            if each.name in names
        ]
        rest = [part for each in parts for part in (each.initramfs, each.modules)]
        list(pool.map(cache.ensure, [*rest, *programs, *tickers, mend]))
        list(pythons)
    whole = image.artifact(Parts(made.emulator, made.system, python, programs, tickers, parts), cache)
    folder = cache.ensure(whole)
    cache.touch(whole)
    cache.prune(whole.name, _KEEP_IMAGES)
    boot = {
        each.kernel.name: BootKernel(
            each.kernel.name,
            each.kernel.release,
            each.kernel.vmlinuz,
            cache.path(each.initramfs) / "initrd",
            kernel_config.wishes().slowness(kernel_config.parse(each.kernel.config.read_text())),
        )
        for each in parts
    }
    return Built(
        cache.path(made.emulator) / roots.TREE,
        cache.path(mend) / "svm",
        folder / image.FILE,
        whole.digest,
        boot,
    )


def _parts(kernel: Kernel, against: Artifact | KernelSource, emulator: Artifact, cache: Cache) -> KernelParts:
    module = kernels.module_artifact(kernel.name, against, cache)
    return KernelParts(
        kernel,
        initramfs.artifact(kernel, emulator, cache),
        kernels.modules_artifact(kernel, module, emulator, cache),
    )


def emulator_artifact() -> Artifact:
    """The tree that tools are run from."""
    return roots.artifact("emulator", recipes.roots().emulator)


def forget_roots(cache: Cache) -> None:
    """Drop the Debian trees, so that the next build takes the archive's newest packages."""
    everything = [kernel.name for kernel in recipes.kernels().kernel]
    for each in _Roots.from_recipes(everything).all():
        cache.forget(each)


def _open_all(cache: Cache, pool: ThreadPoolExecutor, artifacts: dict[str, Artifact]) -> list[Kernel]:
    return list(pool.map(lambda name: kernels.opened(name, artifacts[name], cache), artifacts))
