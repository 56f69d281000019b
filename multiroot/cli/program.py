# SPDX-License-Identifier: GPL-2.0-or-later
"""The command: finds the module of what is asked for, and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from multiroot import __version__, bugs, proc
from multiroot.cli import usage
from multiroot.cli.commands import Group, Run
from multiroot.errors import BadRequestError, BugError, MultirootError

# Each with the first sentence of its own help, so that listing them imports none.
COMMANDS = {
    "arena": ("multiroot.cli.arena:arena", "Look at the arena, the memory that guests live in."),
    "bench": (
        "multiroot.cli.bench:bench",
        "Measure what this does beside what others do, in one lab machine and one run.",
    ),
    "completion": ("multiroot.cli.completion:completion", "Print the completion script for SHELL."),
    "demo": ("multiroot.cli.demo:demo", "Hand a running VM from one kernel to another, and prove it."),
    "disk": ("multiroot.cli.disk:disk", "See what VMs can have for disks."),
    "doctor": (
        "multiroot.cli.doctor:doctor",
        "Look at this root and say what works, what does not, and how to mend it.",
    ),
    "handoff": (
        "multiroot.cli.handoff:handoff",
        "Hand running VMs to the new root, or back to the old one.",
    ),
    "kexec": ("multiroot.cli.kexec:kexec", "Load, start and stop a second kernel by hand."),
    "kernel": ("multiroot.cli.kernel:kernel", "See what a kernel has to be built with, and build one."),
    "lab": ("multiroot.cli.lab:lab", "Build and run the lab machine."),
    "plan": ("multiroot.cli.plan:plan", "See what a new root would get."),
    "root": ("multiroot.cli.root:root", "See the roots; start and release a new one."),
    "try": (
        "multiroot.cli.try_:try_",
        "Try kernels of yours as roots, run CMD in one of them, and judge both.",
    ),
    "update": (
        "multiroot.cli.update:update",
        "Start a new kernel, hand all VMs to it, and give it the whole machine.",
    ),
    "watch": (
        "multiroot.cli.watch:watch",
        "Watch roots, CPUs, memory, VMs and the update as they change, until Ctrl-C.",
    ),
    "vm": ("multiroot.cli.vm:vm", "Run VMs in a root and look at them."),
}


@click.group(
    cls=Group,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="multiroot")
@click.option(
    "--debug", is_flag=True, help="Show every program that is run, ready to paste (or MULTIROOT_DEBUG=1)."
)
def cli(debug: bool) -> None:
    """Run two Linux kernels on one machine and hand running VMs from one to the other."""
    if debug or proc.debug_wanted():
        proc.show_commands()


class Terminated(SystemExit):
    """Raised on SIGTERM, so that a command ends as with Ctrl-C and cleans up: labs, processes, files."""


def main() -> None:
    """Run the command; exit codes are those of multiroot.errors (2 for bad usage, 130 for Ctrl-C, 143 for
    SIGTERM).
    """
    run = Run()
    signal.signal(signal.SIGTERM, _terminate)
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_bytes(sys.argv[1:])
        code = cli.main(prog_name="multiroot", standalone_mode=False, obj=run)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        # Click makes the one from the other.
        fail(_with_notes("interrupted", error.__cause__ or error), 130)
    except Terminated as error:
        fail(_with_notes("terminated", error), 143)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        fail(usage.told(error), run.failure or error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has had enough; nothing more can be written, not even at exit.
        _drop_output()
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the last one to hear of it
        ours = _ours(error)
        if run.lab:
            from multiroot.cli.agent import explained

            ours = explained(ours, run.lab)
        if isinstance(error, OSError):
            _drop_output()
        fail(str(ours), run.failure or ours.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _with_notes(word: str, error: BaseException) -> str:
    """A word and what the command has left to say about it."""
    return "; ".join([word, *getattr(error, "__notes__", ())])


def _ours(error: Exception) -> MultirootError:
    """What to say and to exit with."""
    if isinstance(error, _rpc_errors()):
        from multiroot.rpc.status import decode

        return decode(error, "the agent")
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("multiroot"):
        return BadRequestError(
            f"this needs {error.name}, which is not installed here",
            "the lab and its demos run on the workstation, a root has only what it needs itself; there, "
            "`multiroot watch` shows the machine",
        )
    ours = bugs.explain(error, sys.argv)
    if isinstance(ours, BugError) and proc.shows_commands():
        import traceback

        traceback.print_exception(error)
    return ours


def _refuse_bytes(words: Sequence[str]) -> None:
    """Names and paths become part of messages, which are text."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise BadRequestError(f"not valid UTF-8: {word!r}", "give it another name") from error


def _drop_output() -> None:
    """See to it that what nobody takes is not written again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """A shell can start us without any (`<&-`); Python then has None in their place."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115, PTH123 - for the life of the program
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def fail(message: str, code: int) -> None:
    """Print one line on stderr and exit."""
    from multiroot.cli.output import say

    say(f"multiroot: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _rpc_errors() -> tuple[type[Any], ...]:
    """grpc's error class if anything used grpc; importing it just to look would slow every command."""
    grpc = sys.modules.get("grpc")
    return (grpc.RpcError,) if grpc else ()
