# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot bench NAME`: measure, keep every sample, say what they mean."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from multiroot.bench import names
from multiroot.bench.results.view import View
from multiroot.cli.bench_run import (
    OUR_METRICS,
    SAMPLES,
    common_options,
    lab_options,
    parse_machines,
    parse_sizes,
    results_folder,
    show,
    tick_option,
    watched,
)
from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_json, print_table, say
from multiroot.cli.output_file import OUTPUT_FOLDER
from multiroot.errors import BadRequestError
from multiroot.units import parse_count, parse_size
from multiroot.vm.definition import check_ram

MOST = 15  # packages that a table shows


@click.group(cls=Group)
def bench() -> None:
    """Measure what this does beside what others do, in one lab machine and one run."""


@bench.command(example="multiroot bench handoff --ram 128M,1G --rounds 3")
@click.option("--contenders", default="", metavar="LIST", help="Only these, separated by commas.")
@click.option("--ram", default="128M", show_default=True, metavar="LIST", help="RAM of the VM.")
@click.option(
    "--vms", type=click.IntRange(1, 16), default=1, show_default=True, help="VMs of the multi-root handoff."
)
@click.option(
    "--machine", default="q35", show_default=True, metavar="LIST", help="QEMU machines: q35, microvm."
)
@click.option(
    "--firmware", default="direct", show_default=True, metavar="LIST", help="What starts the guest."
)
@click.option(
    "--guest",
    default="ticker",
    show_default=True,
    metavar="LIST",
    help="ticker; debian, which boots from a disk and takes minutes for it.",
)
@click.option(
    "--backend",
    default="default",
    show_default=True,
    metavar="LIST",
    help="What shows the arena: default,own,ext4, as `multiroot try` has them; a machine for each in a boot.",
)
@click.option(
    "--dirty",
    type=click.IntRange(0, 100_000),
    default=0,
    metavar="RATE",
    help="MiB/s of memory the guest keeps writing.",
)
@tick_option(10)
@click.option(
    "--rounds", type=SAMPLES, default=5, show_default=True, help="Samples of each contender in a boot."
)
@click.option("--boots", type=SAMPLES, default=1, show_default=True, help="Boots of the lab machine.")
@click.option(
    "--fresh",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="N",
    help="Bring N new roots up each way, and compare the first handoff into each with later ones.",
)
@common_options
def handoff(
    contenders: str,
    ram: str,
    machine: str,
    firmware: str,
    guest: str,
    backend: str,
    out: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Blackout of the multi-root handoff, beside what QEMU does within one kernel.

    With several sizes, machines or firmwares every contender takes turns with each; ratios are between
    equals. The firmwares are those of `multiroot vm run`: direct,seabios,ovmf.
    """
    from multiroot.bench import handoff as work

    lab = lab_options(chosen)
    options = work.Options(
        lab=lab,
        contenders=tuple(contenders.split(",")) if contenders else names.HANDOFF,
        ram=parse_sizes(ram),
        machine=parse_machines(machine),
        firmware=tuple(firmware.split(",")),
        guest=tuple(guest.split(",")),
        backend=tuple(backend.split(",")),
        **chosen,
    ).checked()
    folder = out or results_folder("handoff")
    run = watched(lambda phases: work.run(options, folder, phases))
    view = View("blackout_ns", names.IN_PLACE, names.OURS, OUR_METRICS, owners=(names.OURS, names.IN_PLACE))
    if options.fresh:
        view = View(
            "blackout_ns",
            names.LATER,
            names.FIRST,
            OUR_METRICS,
            also=("blackout_gap_ns",),
            owners=(names.FIRST, names.COLD, names.LATER),
        )
    show(run, view, folder, as_json)


@bench.command(example="multiroot bench launch --new-kernel 6.1")
@click.option("--rounds", type=SAMPLES, default=3, show_default=True, help="Samples of each.")
@common_options
def launch(out: Path | None, as_json: bool, **chosen: Any) -> None:
    """A new root coming up, beside a fresh machine that boots the same kernel."""
    from multiroot.bench import launch as work

    options = work.Options(lab=lab_options(chosen), **chosen)
    folder = out or results_folder("launch")
    run = watched(lambda phases: work.run(options, folder, phases))
    view = View("from_kernel_to_ready_ns", names.FRESH, names.NEW_ROOT, tuple(run.metrics()))
    show(run, view, folder, as_json)


@bench.command(example="multiroot bench memory --ram 512M")
@click.option("--ram", default="128M", show_default=True, metavar="SIZE", help="RAM of the VM, not counted.")
@click.option("--rounds", type=SAMPLES, default=3, show_default=True, help="Samples of each.")
@common_options
def memory(ram: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """What a second root, its agent, and a waiting QEMU take of memory."""
    from multiroot.bench import memory as work

    size = parse_size(ram)
    check_ram(size)
    options = work.Options(lab=lab_options(chosen), ram=size, **chosen)
    folder = out or results_folder("memory")
    run = watched(lambda phases: work.run(options, folder, phases))
    show(run, View(work.METRIC, "", work.ROOT, (work.METRIC,)), folder, as_json)


@bench.command(example="multiroot bench scale --vms 1,4 --ram 128M")
@click.option("--vms", default="1,2,4,8", show_default=True, metavar="LIST", help="Numbers of VMs.")
@click.option("--ram", default="128M,512M,2G,4G", show_default=True, metavar="LIST", help="Sizes of one VM.")
@tick_option(10)
@click.option("--ready", is_flag=True, help="Each number of VMs also after `multiroot handoff prepare`.")
@click.option("--rounds", type=SAMPLES, default=3, show_default=True, help="Samples of each.")
@common_options
def scale(vms: str, ram: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """How the handoff grows with the number of VMs and with their RAM."""
    from multiroot.bench import scale as work

    options = work.Options(
        lab=lab_options(chosen),
        vms=tuple(parse_count(each, most=16) for each in vms.split(",")),
        ram=parse_sizes(ram),
        **chosen,
    ).checked()
    folder = out or results_folder("scale")
    run = watched(lambda phases: work.run(options, folder, phases))
    one = work.label(1, min(options.ram))
    show(run, View("blackout_ns", one, one, (*OUR_METRICS, "all_ns")), folder, as_json)
    if not as_json:
        rows = [(line.what, f"{line.per / 1e6:.1f}", f"{line.fixed / 1e6:.1f}") for line in work.slopes(run)]
        print_table(("slope", "ms for one more >", "ms for none >"), rows)


@bench.command(example="multiroot bench link --rounds 3")
@click.option("--rounds", type=SAMPLES, default=5, show_default=True, help="Samples of each.")
@common_options
def link(out: Path | None, as_json: bool, **chosen: Any) -> None:
    """The link between roots, beside loopback TCP and virtio-net between two machines; the doorbell."""
    from multiroot.bench import link as work

    options = work.Options(lab=lab_options(chosen), **chosen)
    folder = out or results_folder("link")
    run = watched(lambda phases: work.run(options, folder, phases))
    view = View(work.RTT, work.LOOPBACK, work.LINK, tuple(run.metrics()), also=(work.STREAM, work.CPU))
    show(run, view, folder, as_json)


@bench.command(example="multiroot bench disk --rounds 3")
@click.option("--rounds", type=SAMPLES, default=5, show_default=True, help="Samples of each.")
@common_options
def disk(out: Path | None, as_json: bool, **chosen: Any) -> None:
    """A guest's disk by each way in which all roots reach one, beside one that its root alone has.

    512 requests of 64 KiB, and 512 small ones of 4 KiB, one after the other.
    """
    from multiroot.bench import disk as work

    options = work.Options(lab=lab_options(chosen), **chosen)
    folder = out or results_folder("disk")
    run = watched(lambda phases: work.run(options, folder, phases))
    first, *also = work.METRICS
    view = View(first, names.OWN_DISK, names.PMEM_DISK, work.METRICS, also=tuple(also))
    show(run, view, folder, as_json)


@bench.command(example="multiroot bench watch --readers 50")
@click.option("--ram", default="128M", show_default=True, metavar="SIZE", help="RAM of the VM.")
@click.option(
    "--readers", type=click.IntRange(1, 1000), default=50, show_default=True, help="Of the page's stream."
)
@click.option(
    "--tabs",
    type=click.IntRange(0, 50),
    default=0,
    show_default=True,
    help="Of a Chromium that draws it, which takes CPU from a lab on the same computer.",
)
@click.option("--rounds", type=SAMPLES, default=10, show_default=True, help="Samples of each.")
@common_options
def watch(ram: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Blackout of the handoff while nobody looks, and while many browsers look at the page (`lab ui`)."""
    from multiroot.bench import watch as work

    size = parse_size(ram)
    check_ram(size)
    options = work.check(work.Options(lab=lab_options(chosen), ram=size, **chosen))
    folder = out or results_folder("watch")
    run = watched(lambda phases: work.run(options, folder, phases))
    show(run, View("blackout_ns", names.UNWATCHED, names.WATCHED, OUR_METRICS), folder, as_json)


@bench.command(example="multiroot bench connection --rounds 10")
@click.option("--ram", default="128M", show_default=True, metavar="SIZE", help="RAM of the VM.")
@click.option("--rounds", type=SAMPLES, default=10, show_default=True, help="Samples.")
@common_options
def connection(ram: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """How long one TCP connection to a guest stands in a handoff, beyond the blackout.

    From the workstation a word is sent when the one before has come back, every 2 ms at most. `still` is how
    long one took at most in the handoff, `usual` the median before it, `beyond` what is left of `still`
    without that and the blackout.
    """
    from multiroot.bench import connection as work

    size = parse_size(ram)
    check_ram(size)
    options = work.Options(lab=lab_options(chosen), ram=size, **chosen)
    folder = out or results_folder("connection")
    run = watched(lambda phases: work.run(options, folder, phases))
    metrics = (*work.METRICS, *OUR_METRICS, *work.TRACED)
    show(run, View(work.STILL, "", names.OURS, metrics, owners=(names.OURS,)), folder, as_json)


@bench.command(example="multiroot bench update --vms 1,8 --contenders multi-root,kexec-pmem")
@click.option("--contenders", default="", metavar="LIST", help="Only these, separated by commas.")
@click.option("--vms", default="1,8", show_default=True, metavar="LIST", help="Numbers of VMs.")
@click.option("--ram", default="128M", show_default=True, metavar="SIZE", help="RAM of each VM.")
@tick_option(100)
@click.option("--rounds", type=SAMPLES, default=1, show_default=True, help="Samples of each.")
@common_options
def update(contenders: str, vms: str, ram: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """A whole update from the command on, beside kexec + PMEM and a machine turned off and on.

    `wall` is until the new kernel has all that the old one had, `served` until the last VM runs under it,
    `blackout` the longest time that one VM stood. Each sample boots its own lab machine.
    """
    from multiroot.bench import update as work

    size = parse_size(ram)
    check_ram(size)
    options = work.Options(
        lab=lab_options(chosen),
        contenders=tuple(contenders.split(",")) if contenders else names.UPDATE,
        vms=tuple(parse_count(each, most=16) for each in vms.split(",")),
        ram=size,
        **chosen,
    ).checked()
    folder = out or results_folder("update")
    run = watched(lambda phases: work.run(options, folder, phases))
    show(run, work.view(options), folder, as_json)


@bench.command(example="multiroot bench imports --json")
@click.option("--all", "whole_agent", is_flag=True, help="Also what it imports once it answers.")
@json_option
def imports(whole_agent: bool, as_json: bool) -> None:
    """What an agent imports before it answers, and how long that takes on this computer.

    A new root's agent is waited for, and most of its start are imports. Needs no lab.
    """
    from multiroot.bench import imports as work

    found = work.measure(*([work.AGENT, work.LATER] if whole_agent else [work.AGENT]))
    packages = work.packages(found)
    whole = work.Package("all", len(found), sum(each.own_us for each in found))
    if as_json:
        print_json({"all": asdict(whole), "packages": [asdict(each) for each in packages]})
        return
    rows = [(each.name, str(each.modules), f"{each.own_us / 1000:.1f}") for each in [whole, *packages[:MOST]]]
    print_table(("package", "modules >", "ms >"), rows, title="bench imports")


@bench.command(example="multiroot bench quick --record")
@click.option("--record", is_flag=True, help="Make this run's ratios the recorded ones.")
@common_options
def quick(record: bool, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """A few minutes of `handoff`: its ratios, and their change against the recorded ones."""
    from multiroot.bench import handoff as work
    from multiroot.bench.results import guard

    options = work.Options(
        lab=lab_options(chosen),
        contenders=guard.CONTENDERS,
        rounds=guard.ROUNDS,
        traced=False,
        **chosen,
    )
    folder = out or results_folder("quick")
    run = watched(lambda phases: work.run(options, folder, phases))
    show(run, View("blackout_ns", names.IN_PLACE, names.OURS, OUR_METRICS), folder, as_json)
    now = guard.ratios(run)
    before = guard.recorded()
    if not as_json:
        print_table(*guard.change_table(before, now), title="Change against what was recorded")
    if record:
        guard.record(run, now)
        say(f"recorded in {guard.FILE}", err=True)


@bench.command(example="multiroot bench compare main . -- handoff --contenders multi-root --rounds 5")
@click.argument("one", metavar="REV1")
@click.argument("other", metavar="REV2")
@click.argument("words", nargs=-1, metavar="[BENCH [OPTION]...]")
@click.option("--turns", type=SAMPLES, default=3, show_default=True, help="Turns of each revision.")
@click.option("--out", type=OUTPUT_FOLDER, help="Folder for what was measured.")
@click.option("--seed", default=1, show_default=True, help="Decides the order of turns.")
@click.option("--name", default="compare", show_default=True, help="What the labs' names begin with.")
@json_option
def compare(
    one: str,
    other: str,
    words: tuple[str, ...],
    turns: int,
    out: Path | None,
    seed: int,
    name: str,
    as_json: bool,
) -> None:
    """Two revisions of multiroot, as git names them, or `.` for the source as it is.

    They take turns with a bench, each by its own code: `handoff --contenders multi-root --rounds 5` if none
    is named after `--`. Ratios are those of the second to the first.
    """
    from multiroot.bench import revisions as work

    options = work.Options((one, other), words or work.USUAL, turns, seed, name).checked()
    if options.words[0] not in bench.commands:
        there = ", ".join(name for name in bench.commands if name != "compare")
        raise BadRequestError(f"no bench called {options.words[0]!r}", f"there are: {there}")
    folder = out or results_folder("compare")
    run = watched(lambda phases: work.run(options, folder, phases))
    first, second = run.header.options["revisions"]
    metric = work.first_metric(run)
    also = tuple(each for each in ("gap_ns",) if each in run.metrics() and each != metric)
    show(run, View(metric, first, second, tuple(run.metrics()), also), folder, as_json)
