# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot kexec`: load, start and stop a second kernel by hand, in the manner of kexec(8)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.commands import Group, MayBeEmpty
from multiroot.cli.numbers import FiniteRange
from multiroot.cli.output import Progress, json_option, print_json, print_lost, print_table, say
from multiroot.cli.planning import (
    hex_rows,
    known_facts,
    open_device,
    parse_request,
    plan_rows,
    request_options,
)
from multiroot.errors import ConflictError
from multiroot.units import format_cpu_list

if TYPE_CHECKING:
    from multiroot.device.handle import Device
    from multiroot.launch.record import Loaded
    from multiroot.launch.session import Prepared


@click.group(cls=Group)
def kexec() -> None:
    """Load, start and stop a second kernel by hand."""


@kexec.command(example="multiroot kexec load /boot/vmlinuz --initrd /boot/initrd.img --reuse-cmdline")
@click.argument("kernel")
@click.option("--initrd", default="", metavar="FILE", help="Its initial RAM disk.")
@click.option(
    "--command-line",
    "--append",
    "command_line",
    cls=MayBeEmpty,
    default="",
    metavar="TEXT",
    help="Its command line.",
)
@click.option("--reuse-cmdline", is_flag=True, help="Begin with what fits of this root's command line.")
@request_options
@click.option("-n", "--dry-run", is_flag=True, help="Print memory map and segments, change nothing.")
@json_option
def load(
    kernel: str,
    initrd: str,
    command_line: str,
    reuse_cmdline: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Load KERNEL (a kernel file, or the name of an installed kernel) beside this one.

    What the new root needs to get along with this one is added to the command line.
    """
    from multiroot.launch import record, session
    from multiroot.launch.kernels import find

    files = find(kernel, initrd)
    line = _command_line(command_line, reuse_cmdline)
    device = open_device(required=not dry_run)
    facts = known_facts(device)
    prepared = session.prepare(
        device, facts, files, line, lambda needed: parse_request(**options, needed=needed), _given()
    )
    if dry_run or device is None:
        _show_prepared(prepared, as_json)
        return
    phases, progress = session.phases(), Progress()
    phases.subscribe(progress)
    with ExitStack() as stack:
        stack.enter_context(device)
        stack.enter_context(progress.live())
        loaded = session.load(device, facts, prepared, phases)
    record.save(loaded)
    if as_json:
        print_json(loaded.to_dict())
    else:
        say(f"loaded {loaded.release} as root {loaded.root}; `multiroot kexec start` starts it")


@kexec.command(example="multiroot kexec start --timeout 10")
@click.option(
    "--timeout",
    type=FiniteRange(0, 3600),
    default=5.0,
    show_default=True,
    help="Seconds for it to reach its entry point.",
)
@json_option
def start(timeout: float, as_json: bool) -> None:
    """Start the loaded kernel; this one goes on."""
    from multiroot.launch import record, session

    loaded = _loaded()
    with _device() as device:
        loaded, started = session.start(device, loaded, int(timeout * 1000))
    record.save(loaded)
    entry_ms = (started.tsc_entry - started.tsc_sipi) / loaded.tsc_khz
    if as_json:
        print_json({"root": loaded.root, "release": loaded.release, "entry_ms": entry_ms})
    else:
        say(f"root {loaded.root} ({loaded.release}) was entered after {entry_ms:.2f} ms")


@kexec.command(example="multiroot kexec stop")
@click.option("--force", is_flag=True, help="Even if the new root owns VMs; they are lost.")
@json_option
def stop(force: bool, as_json: bool) -> None:
    """Stop or unload the new kernel; its CPUs and memory come back to this one."""
    from multiroot.launch import record, session

    loaded = _loaded()
    with _device() as device:
        lost = session.stop(device, loaded, force=force)
    record.remove()
    if as_json:
        taken = loaded.taken
        print_json({"root": loaded.root, "cpus": taken.cpus, "blocks": taken.blocks, "lost": lost})
        return
    print_lost(lost)
    cpus = format_cpu_list(loaded.taken.cpus)
    say(f"stopped root {loaded.root}; " + (f"CPU {cpus} online again" if cpus else "its CPUs stay offline"))


@kexec.command(example="multiroot kexec status --json")
@json_option
def status(as_json: bool) -> None:
    """Say whether a kernel is loaded or running; exit code 0 if so, 1 if not (like kexec -S).

    One that the agent loads is not loaded by hand: of that it says "agent" and no more.
    """
    from multiroot.launch import record, session

    loaded = record.find()
    state = "agent" if not loaded and _is_agents() else "none"
    if loaded:
        with _device() as device:
            state = session.state(device, loaded)
    if as_json:
        print_json({"state": state, "loaded": loaded.to_dict() if loaded else None})
    elif loaded:
        print_table(
            ("root", str(loaded.root)),
            [("state", state), ("kernel", loaded.release), *plan_rows(loaded.plan)],
        )
    elif state == "agent":
        say(f"{_AGENTS}; {_SHOWN}")
    else:
        say("no kernel is loaded")
    if state == "none":
        raise click.exceptions.Exit(1)


_AGENTS = "the new root is the agent's"
_SHOWN = "`multiroot root list` shows it"


def _is_agents() -> bool:
    """Whether there is a new root, or one on its way, that was not loaded by hand."""
    device = open_device(required=False)
    if device is None:
        return False
    with device:
        return bool(device.info().carved)


def _loaded() -> Loaded:
    """What was loaded by hand; raises ConflictError if nothing was."""
    from multiroot.launch import kernels, record

    loaded = record.find()
    if loaded:
        return loaded
    if _is_agents():
        raise ConflictError(_AGENTS, f"{_SHOWN}, `multiroot root release` ends it")
    raise ConflictError("no kernel is loaded", f"load one: `multiroot kexec load {kernels.example()}`")


def _device() -> Device:
    device = open_device(required=True)
    assert device
    return device


def _given() -> dict[str, bytes]:
    """A root that is loaded by hand knows the token of this one and no keys: agents do not speak with it."""
    from multiroot.rpc.token_file import TOKEN_FILE

    return {TOKEN_FILE.name: TOKEN_FILE.read_bytes()} if TOKEN_FILE.exists() else {}


def _command_line(own: str, reuse: bool) -> str:
    """The user's part of the command line."""
    if not reuse:
        return own
    from multiroot.kexec.target import target

    return target().reusable(Path("/proc/cmdline").read_text(), own)


def _show_prepared(prepared: Prepared, as_json: bool) -> None:
    """Everything that a load would do."""
    plan, boot = prepared.plan, prepared.boot
    entry = prepared.entry.to_dict()
    if as_json:
        print_json(
            {
                "release": boot.release,
                "command_line": boot.command_line,
                "plan": plan.to_dict(),
                "memory": [
                    {"base": e.range.base, "size": e.range.size, "type": e.type.name, "what": e.what}
                    for e in boot.memory
                ],
                "segments": [{"phys": s.phys, "size": len(s.data), "what": s.what} for s in boot.segments],
                "entry": entry,
            }
        )
        return
    print_table(("kernel", boot.release), plan_rows(plan))
    print_table(
        ("memory map", "to", "size >", "type"),
        hex_rows((e.range.base, e.range.size, f"{e.type.value}: {e.what}") for e in boot.memory),
    )
    print_table(
        ("segment", "to", "size >", "what"), hex_rows((s.phys, len(s.data), s.what) for s in boot.segments)
    )
    print_table(("register", "value"), [(name, f"{value:#x}") for name, value in entry.items()])
    say(f"command line: {boot.command_line}")
