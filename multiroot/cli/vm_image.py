# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm image`: disks for guests that boot by themselves; made here, or brought from elsewhere.

What the code of the lab needs is not in a root, so the functions import it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_json, print_table, say, shown_phases
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.errors import BadRequestError, found_in
from multiroot.toml_files import decoded
from multiroot.units import format_size


@click.group(cls=Group)
def image() -> None:
    """Make, import and find disks for guests."""
    if importlib.util.find_spec("pydantic") is None:
        raise BadRequestError("disk images are made and kept on the workstation", "give the command there")


@image.command(example="multiroot vm image build debian-13 --output guest.raw")
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Put a copy into this new file, which a guest may write to.",
)
@click.option("--refresh", is_flag=True, help="Take the newest packages of the archive.")
@json_option
def build(name: str, output: Path | None, refresh: bool, as_json: bool) -> None:
    """Build the disk NAME of qemu-lab/images; what is in the cache is not built again."""
    from multiroot.lab import disk_image
    from multiroot.lab import lab as labs
    from multiroot.lab.disk_import import DiskFacts

    with shown_phases() as phases:
        cache = labs.cache(phases)
        if output:
            disk_image.check_output(output)
        if refresh:
            disk_image.forget_trees(name, cache)
        disk = disk_image.build(name, cache) / disk_image.DISK
        if output:
            disk_image.copy_to(disk, output, phases)
    if as_json:
        print_json(asdict(DiskFacts.of(name, "built", output.absolute() if output else disk)))
    else:
        say(str(output or disk))


@image.command("import", example="multiroot vm image import fedora-cloud.qcow2 --name fedora")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="What to call it; without: like the file.")
@json_option
def import_file(file: Path, name: str | None, as_json: bool) -> None:
    """Take the disk image FILE, of any format that qemu-img reads, and keep it as a raw disk.

    FILE itself is left as it is.
    """
    from multiroot.lab import disk_import
    from multiroot.lab import lab as labs
    from multiroot.lab.disk_import import DiskFacts

    called = disk_import.default_name(file) if name is None else disk_import.checked_name(name)
    with shown_phases() as phases:
        path = disk_import.bring_in(file, called, labs.cache(phases))
    if as_json:
        print_json(asdict(DiskFacts.of(called, "imported", path)))
    else:
        say(f"{called} is in {path}")


@image.command(example="multiroot vm image seed deb --key ~/.ssh/id_ed25519.pub --output seed.raw")
@click.argument("hostname")
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Public SSH key of who may log in; may be given several times.",
)
@click.option(
    "--user-data", type=click.Path(path_type=Path), metavar="FILE", help="What else cloud-init does."
)
@click.option(
    "--network-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of the guest's cards; without, they ask for addresses by DHCP.",
)
@click.option("--output", type=OUTPUT_FILE, metavar="FILE", required=True, help="The new file.")
def seed(
    hostname: str,
    keys: tuple[Path, ...],
    user_data: Path | None,
    network_config: Path | None,
    output: Path,
) -> None:
    """Make a seed: a small disk that tells a guest its name and who may log in, at its first boot.

    It is what cloud-init calls NoCloud. Cloud images read it, and so does what `vm image build` makes.
    """
    from multiroot.lab import disk_image
    from multiroot.lab import seed as seeds

    made = seeds.make_seed(
        hostname,
        [_text(key, seeds.checked_key) for key in keys],
        _text(user_data, seeds.checked_user_data) if user_data else None,
        _text(network_config, seeds.check_network_config) if network_config else None,
    )
    disk_image.check_output(output)
    seeds.write_image(made, output)
    say(str(output))


def _text(file: Path, check: Callable[[str], object]) -> str:
    """What is in a file; raises BadRequestError, naming it, if it can't be read, or `check` does."""
    try:
        data = file.expanduser().read_bytes()
    except OSError as error:
        raise BadRequestError(f"cannot read {file}: {error.strerror}") from error
    text = decoded(file, data)
    with found_in(file):
        check(text)
    return text


@image.command("list", example="multiroot vm image list --json")
@json_option
def list_images(as_json: bool) -> None:
    """The disks that there are, and those that could be built."""
    from multiroot.lab import disk_image, disk_import, recipes
    from multiroot.lab import lab as labs
    from multiroot.lab.disk_import import DiskFacts
    from multiroot.phases import Phases

    cache = labs.cache(Phases("workstation"))
    built = {name: disk_image.built(name, cache) for name in recipes.disk_image_names()}
    found = [
        DiskFacts.of(name, "built", path) if path else DiskFacts(name, "not built")
        for name, path in built.items()
    ]
    found += [DiskFacts.of(name, "imported", path) for name, path in disk_import.imported().items()]
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        (
            each.name,
            each.kind,
            *(format_size(size) if size else "-" for size in (each.size, each.used)),
            each.path or "-",
        )
        for each in found
    ]
    print_table(("name", "kind", "size >", "used >", "path"), rows)


@image.command("path", example="multiroot vm image path debian-13")
@click.argument("name")
def print_path(name: str) -> None:
    """Print where the disk NAME is. Others may use it too: write to a copy."""
    from multiroot.lab import disk_import
    from multiroot.lab import lab as labs
    from multiroot.phases import Phases

    found = disk_import.find(name, labs.cache(Phases("workstation")))
    if not found:
        raise BadRequestError(f"{name} is not built yet", f"build it: multiroot vm image build {name}")
    say(str(found))


@image.command(example="multiroot vm image rm fedora")
@click.argument("name")
def rm(name: str) -> None:
    """Remove the imported disk NAME."""
    from multiroot.lab import disk_import

    disk_import.remove(name)
    say(f"{name} removed")
