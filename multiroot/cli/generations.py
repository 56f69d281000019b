# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab generations`: update after update in one lab machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from multiroot.cli.commands import Command
from multiroot.cli.output import Progress, print_table, say
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.cli.points import PointsChoice, points_options
from multiroot.demo import device
from multiroot.demo.generations import CardSeen, Generation, Generations
from multiroot.demo.generations import points as points_of
from multiroot.errors import BadRequestError, MultirootError
from multiroot.lab import lab as labs
from multiroot.phases import Phases
from multiroot.units import parse_size
from multiroot.vm.definition import check_ram


@click.command(cls=Command, example="multiroot lab generations --n 4 --kernels 6.12,6.1")
@click.option(
    "--n", "count", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many updates."
)
@click.option(
    "--kernels",
    show_default="6.12,6.1; with a card 6.12-full",
    metavar="LIST",
    help="In turn; the first one boots.",
)
@click.option("--vm-memory", default="256M", show_default=True, metavar="SIZE", help="RAM of the VM.")
@click.option("--name", default="generations", show_default=True, help="Name of the lab it runs in.")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write what was seen to FILE.")
@click.option("--passthrough", is_flag=True, help="The VM owns a network card, at work all the time.")
@click.option("--keep", is_flag=True, help="Leave the lab running to look around, paused where it ended.")
@points_options
def generations(
    count: int,
    kernels: str | None,
    vm_memory: str,
    name: str,
    json_file: Path | None,
    passthrough: bool,
    keep: bool,
    points: PointsChoice,
) -> None:
    """Update N times, kernels in turn, with a VM living through all of it.

    Fails as soon as the guest lost anything or a generation has less than the one before. With --passthrough
    numbered frames come in on the VM's card all the time, and none may be lost or come twice.
    """
    usual = device.KERNEL if passthrough else "6.12,6.1"
    names = [each.strip() for each in (usual if kernels is None else kernels).split(",") if each.strip()]
    if not names:
        raise BadRequestError("no kernels", "say --kernels 6.12,6.1")
    memory = parse_size(vm_memory)
    check_ram(memory)
    phases, progress = Phases("workstation"), Progress()
    phases.subscribe(progress)
    options = labs.Options(
        name=name,
        machine=device.MACHINE if passthrough else "default",
        kernel=names[0],
        kernels=tuple(names),
        vms=1,
        vm_memory=memory,
        hold=keep,
    )
    machine = labs.up(options, phases)
    done: list[Generation] = []

    def seen(generation: Generation) -> None:
        done.append(generation)
        if not points.ktap:
            _print(generation)
        if json_file:
            json_file.write_text(json.dumps([each.to_json() for each in done], indent=2) + "\n")

    failure = ""
    try:
        turn = [labs.kernel_name(names[number % len(names)]) for number in range(1, count + 1)]
        Generations(machine, memory, phases, card=passthrough).run(turn, seen)
    except MultirootError as error:
        failure = str(error)
        raise
    finally:
        if not keep:
            machine.down()
        points.tell(points_of(done, count, failure), "multiroot lab generations")
    if not points.ktap:
        say(f"{count} generations: the VM lived through all of them, and nothing was lost")


def _print(generation: Generation) -> None:
    has, guest = generation.inventory, generation.guest
    print_table(
        (
            "generation >",
            "root >",
            "kernel",
            "CPUs",
            "RAM >",
            "PCI >",
            "extents >",
            "interrupts >",
            "ticks >",
            "missing >",
            "clocks off, s >",
            "s >",
        ),
        [
            (
                generation.number,
                has.root,
                has.kernel,
                has.cpus,
                f"{has.memory >> 20} MiB",
                has.devices,
                has.extents,
                has.interrupts,
                guest.ticks_after,
                guest.missing,
                f"{max(generation.wall_off, generation.drift):.3f}",
                f"{generation.seconds:.1f}",
            )
        ],
    )
    if generation.card:
        _print_card(generation.card)
    print_table(("step", "s >"), [(name, f"{seconds:.3f}") for name, seconds in generation.steps.items()])


def _print_card(card: CardSeen) -> None:
    frames = card.frames
    print_table(
        ("frames >", "to number >", "lost >", "twice >", "card resets >", "DMA faults >", "interrupts >"),
        [
            (
                frames.count,
                frames.last,
                frames.lost,
                frames.again,
                card.resets,
                card.faults,
                card.interrupts,
            )
        ],
    )
