# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot try`: somebody's kernels as roots, their test in one of them, one verdict and one exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from multiroot.cli.commands import Command, MayBeEmpty
from multiroot.cli.lab_options import LabChoice, SizeType, lab_options
from multiroot.cli.numbers import FiniteRange
from multiroot.cli.output import clean, console, plain, print_json, say, shown_phases
from multiroot.cli.output_file import FILE_OR_STDOUT
from multiroot.cli.points import PointsChoice, points_options
from multiroot.cli.try_matrix import MatrixChoice, matrix_options
from multiroot.errors import MultirootError

if TYPE_CHECKING:
    from multiroot.lab.execution import Sink
    from multiroot.verdict.findings import Finding
    from multiroot.verdict.points import Point
    from multiroot.workbench.carry import Streams
    from multiroot.workbench.trial_report import Repeated, Trial
    from multiroot.workbench.wanted import Until, Wanted, Where

UNTESTED = 125  # as `git bisect run` wants it
KERNEL = "6.12"
MARKS = {"held": "[green]held   [/]", "FAILED": "[red]FAILED [/]", "skipped": "[yellow]skipped[/]"}


@dataclass(frozen=True)
class Asked:
    """What the command line says of the trial itself."""

    old: str
    new: str
    guest: str
    where: str | None
    until: str | None
    append_old: str
    append_new: str
    append_guest: str
    backend: str
    timeout: float | None
    patience: float | None
    join_timeout: int
    retries: int
    allow: tuple[Path, ...]
    carried: tuple[Path, ...]
    keep: bool
    carve: int | None
    logs: Path | None
    kselftest: str | None
    kselftest_tree: Path | None

    def wanted(self, lab: LabChoice, command: tuple[str, ...]) -> Wanted:
        """The trial. Raises BadRequestError for what cannot be, UsageError for what contradicts itself."""
        from multiroot.lab.backends import Backend
        from multiroot.lab.lab import check_names, chosen_recipe, own_kernels
        from multiroot.workbench import carry, kernel_build
        from multiroot.workbench.wanted import VM_MEMORY, Until, Wanted, Where

        if self.kselftest and command:
            raise click.UsageError("--kselftest runs in place of CMD.")
        if self.kselftest_tree and not self.kselftest:
            raise click.UsageError("--kselftest-tree is for --kselftest.")
        where = Where(self.where) if self.where else Where.OLD if self.until == "boot" else Where.NEW
        until = Until[(self.until or ("boot" if where is Where.OLD and not self.new else "handover")).upper()]
        if where is Where.NEW and until is Until.BOOT:
            raise click.UsageError("--until boot has no new root for --in new.")
        if where is Where.OLD and until is Until.UPDATE:
            raise click.UsageError("--until update leaves no old root for --in old.")
        new = self.new or self.old
        options = lab.options(
            kernel=self.old,
            kernels=(new,),
            guest_kernels=(self.guest,) if self.guest else (),
            vms=1,
            vm_memory=VM_MEMORY,
            carve=self.carve,
            append=Backend(self.backend).appended(self.append_old),
            attempts=1 + self.retries,
        )
        check_names(options)
        chosen_recipe(options)
        with shown_phases() as phases:
            kernel_build.build_named(options.all_kernels, phases)
        own_kernels(options)
        if where is not Where.WORKSTATION:
            carry.check(command, self.carried)
        return Wanted(
            lab=options,
            new=new,
            guest=self.guest,
            where=where,
            until=until,
            command=command,
            carried=self.carried,
            append_new=Backend(self.backend).appended(self.append_new),
            append_guest=self.append_guest,
            timeout_s=self.timeout,
            patience_s=self.patience,
            retries=self.retries,
            join_timeout_s=self.join_timeout,
            keep=self.keep,
            allow=_allowed(self.allow),
            logs=self.logs,
            places=self._places(where, until),
        )

    def _places(self, where: Where, until: Until) -> tuple[Where, ...]:
        """Where kselftests run: where somebody wants them, or in each root that is there and in the guest."""
        from multiroot.workbench.wanted import Until, Where

        if not self.kselftest:
            return ()
        if self.where:
            if where is Where.WORKSTATION:
                raise click.UsageError("kselftests run in the lab: --in old, new or vm.")
            return (where,)
        there = {Where.OLD: until is not Until.UPDATE, Where.NEW: until is not Until.BOOT}
        return (*(each for each, is_there in there.items() if is_there), Where.VM)

    def built(self, wanted: Wanted) -> Wanted:
        """The trial with its kselftests, which are built when they were asked for."""
        from multiroot.workbench import kselftest

        if not self.kselftest:
            return wanted
        wishes = kselftest.wishes(self.kselftest)
        trees = kselftest.trees((wanted.new, wanted.lab.kernel), self.kselftest_tree)
        with shown_phases() as phases:
            return replace(wanted, suites=tuple(kselftest.build(trees, wishes, phases)))


@click.command(
    "try",
    cls=Command,
    failure=UNTESTED,
    context_settings={"ignore_unknown_options": False},
    example="multiroot try --old 6.12 --new 6.1 --in new -- uname -r",
)
@click.option("--old", default=KERNEL, show_default=True, metavar="KERNEL", help="The old root's kernel.")
@click.option("--new", default="", show_default="as --old", metavar="KERNEL", help="The new root's kernel.")
@click.option("--guest", default="", show_default="the lab's", metavar="KERNEL", help="The guest's kernel.")
@click.option(
    "--in",
    "where",
    type=click.Choice(["old", "new", "vm", "workstation"]),
    help="Where CMD runs (new, or old if nothing else is wanted).",
)
@click.option(
    "--until",
    type=click.Choice(["boot", "launch", "handover", "update"]),
    help="How far the machine is when CMD runs (handover: the guest is in the new root).",
)
@click.option(
    "--append-old", cls=MayBeEmpty, default="", metavar="WORDS", help="More of the old root's command line."
)
@click.option(
    "--append-new", cls=MayBeEmpty, default="", metavar="WORDS", help="More of the new root's command line."
)
@click.option(
    "--append-guest", cls=MayBeEmpty, default="", metavar="WORDS", help="More of the guest's command line."
)
@click.option(
    "--backend",
    type=click.Choice(["default", "own", "ext4"]),
    default="default",
    show_default=True,
    help="What shows the arena: device-dax where a kernel has it; or always multiroot's own device; or a file"
    " of ext4 with DAX in the first root, and that device in later ones.",
)
@click.option(
    "--carry", "carried", multiple=True, type=click.Path(path_type=Path), help="A file to lie beside CMD."
)
@click.option(
    "--timeout", type=FiniteRange(min=0, min_open=True), metavar="S", help="Most that CMD may take."
)
@click.option(
    "--patience",
    type=FiniteRange(min=1),
    show_default="20, and more for kernels that look for bugs in themselves",
    metavar="S",
    help="A root that does not answer for so long stands still.",
)
@click.option(
    "--join-timeout", type=click.IntRange(0, 86400), default=0, metavar="S", help="For the new root."
)
@click.option(
    "--retries",
    type=click.IntRange(0, 10),
    default=0,
    show_default=True,
    help="Of boots that hang. A flaky boot is a result.",
)
@click.option("--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, help="So many trials.")
@click.option(
    "--allow", multiple=True, type=click.Path(path_type=Path), help="A list of what kernels may say."
)
@lab_options("try")
@click.option("--keep", is_flag=True, help="Leave the lab running to look around.")
@click.option("--carve", type=SizeType(), metavar="SIZE", help="Memory of the new root.")
@click.option("--logs", type=click.Path(path_type=Path), metavar="DIR", help="Copy the consoles' logs there.")
@click.option(
    "--kselftest",
    metavar="SUITES",
    help="In place of CMD, suites of the kernel's own tests (timers,kvm:hyperv_cpuid), in both roots and a "
    "guest, or where --in says.",
)
@click.option(
    "--kselftest-tree",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The source tree that they are built from, if not that of --new or --old.",
)
@matrix_options
@click.option("--json", "json_file", type=FILE_OR_STDOUT, help="Write what was seen to FILE ('-': stdout).")
@points_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def try_(
    lab: LabChoice,
    points: PointsChoice,
    command: tuple[str, ...],
    repeat: int,
    json_file: Path | None,
    matrix: MatrixChoice,
    **words: Any,
) -> int:
    """Try kernels of yours as roots, run CMD in one of them, and judge both.

    KERNEL is a name of the lab's, or a tree that was built, its O= folder, an image (vmlinuz), a folder with
    one, or a .deb. CMD's input, output and exit code are ours. A CMD with a slash is a file of yours and is
    carried in. Without CMD the standard job is played: a handoff there and back, and two updates. With
    --matrix a file says all of this.

    Exit codes: 0 good; 1 bad, or what CMD exits with; 125 it could not be tested.
    """
    if matrix.file:
        matrix.check_alone(click.get_current_context())
        return matrix.play()
    matrix.check_unused(click.get_current_context())
    asked = Asked(**words)
    points.check_stdout(data=json_file == Path("-"))
    if repeat > 1 and asked.keep:
        raise click.UsageError("--keep is for one trial.")
    wanted = asked.built(asked.wanted(lab, command))
    seen = _play(wanted, repeat, _streams(points))
    points.tell(seen.points(), "multiroot try")
    _write(seen, json_file)
    _show(seen)
    if asked.keep:
        say(f"the lab runs on; end it with `multiroot lab down --name {lab.name}`", err=True)
    return seen.code()


def _play(wanted: Wanted, repeat: int, streams: Streams) -> Repeated:
    from multiroot.workbench import trial
    from multiroot.workbench.trial_report import Repeated, Trial

    trials: list[Trial] = []
    for number in range(1, repeat + 1):
        with shown_phases() as phases:
            try:
                trials.append(trial.run(wanted, phases, streams))
            except MultirootError as error:
                if repeat == 1:
                    raise
                trials.append(Trial((), untested=str(error)))
        if repeat > 1:
            say(f"trial {number} of {repeat}: {_verdict(trials[-1])}", err=True)
    return Repeated(trials)


def _verdict(trial: Trial) -> str:
    if trial.untested:
        return f"not tested: {trial.untested}"
    code = trial.code()
    return "good" if code == 0 else "not tested" if code == UNTESTED else f"bad ({code})"


def _streams(points: PointsChoice) -> Streams:
    from multiroot.workbench.carry import Streams

    stdin = None if sys.stdin.isatty() else sys.stdin.fileno()
    out, err = (lambda: sys.stdout.buffer), (lambda: sys.stderr.buffer)
    return Streams(stdin, _writer(out, points.ktap), _writer(err, False))


def _writer(stream: Callable[[], BinaryIO], as_comment: bool) -> Sink:
    """Passes output on; in KTAP what a test prints are comments."""
    started = True

    def write(data: bytes) -> None:
        nonlocal started
        if as_comment:
            marked = data.replace(b"\n", b"\n# ").removesuffix(b"# ")
            data, started = (b"# " if started else b"") + marked, data.endswith(b"\n")
        stream().write(data)
        stream().flush()

    return write


def _allowed(paths: Sequence[Path]) -> tuple[Any, ...]:
    from multiroot.workbench.allowed import allow_list_of

    return tuple(each for path in paths for each in allow_list_of(path))


def _write(seen: Repeated, json_file: Path | None) -> None:
    if json_file == Path("-"):
        print_json(seen.to_json())
    elif json_file:
        try:
            json_file.write_text(json.dumps(seen.to_json(), indent=2) + "\n")
        except OSError as error:
            raise MultirootError(f"cannot write {json_file}: {error.strerror}") from error


def _show(seen: Repeated) -> None:
    """On stderr, for stdout is the command's: every point, and each finding with the lines around it."""
    out = console(stderr=True)
    shown: set[str] = set()
    for trial in seen.trials:
        for finding in trial.counted:
            if finding.headline not in shown:
                _show_finding(finding)
            shown.add(finding.headline)
        if trial.backtraces:
            out.print("[red]what the new root's CPUs did[/]")
        for line in trial.backtraces:
            out.print(f"    {clean(line)}", style="dim", markup=False)
    for each in seen.points():
        _show_point(each)
    if len(seen.trials) > 1:
        rate = f"{seen.bad} of {seen.tested} trials were bad: a flake rate of {seen.flake_rate:.0%}"
        out.print(
            rate
            + (f", {len(seen.trials) - seen.tested} not tested" if seen.tested < len(seen.trials) else "")
        )
    else:
        out.print(_verdict(seen.trials[0]))


def _show_point(each: Point) -> None:
    out = console(stderr=True)
    seen = f": {plain(each.seen)}" if each.seen else ""
    out.print(f"  {MARKS[each.outcome]} {plain(each.claim)}{seen}")
    for detail in each.details:
        out.print(f"          {plain(detail)}")


def _show_finding(finding: Finding) -> None:
    out = console(stderr=True)
    out.print(f"[red]{plain(finding.headline)}[/]")
    for line in finding.last:
        out.print(f"    {clean(line)}", style="dim", markup=False)
    for line in finding.lines:
        out.print(f"    {clean(line)}", markup=False)
