# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot doctor` in a root, `multiroot lab doctor` on the workstation: one line a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from multiroot.cli.commands import Command
from multiroot.cli.output import json_option, print_json, print_table, say

if TYPE_CHECKING:
    from multiroot.doctor.checks import Check

UNHEALTHY = 1


@click.command(cls=Command, example="multiroot doctor --json")
@json_option
def doctor(as_json: bool) -> None:
    """Look at this root and say what works, what does not, and how to mend it. Changes nothing.

    Exits with 0 if nothing failed (warnings are no failures), else with 1.
    """
    from multiroot.device.handle import DEVICE
    from multiroot.doctor.root import RootDoctor

    elsewhere = (
        "" if DEVICE.exists() else "This is no root. In a lab: `multiroot lab exec -- multiroot doctor`"
    )
    report(RootDoctor().checks(), as_json, elsewhere)


@click.command("doctor", cls=Command, example="multiroot lab doctor")
@json_option
def lab_doctor(as_json: bool) -> None:
    """Look at this workstation: can it build and run a lab? Changes nothing.

    Exits with 0 if nothing failed (warnings are no failures), else with 1.
    """
    from multiroot.lab.doctor import WorkstationDoctor

    report(WorkstationDoctor().checks(), as_json)


def report(checks: Iterable[tuple[str, Check]], as_json: bool, elsewhere: str = "") -> None:
    """Print what the checks find; exit with UNHEALTHY when one failed, which may be well `elsewhere`."""
    from multiroot.doctor.checks import examine, healthy

    findings = examine(checks)
    if as_json:
        print_json({"healthy": healthy(findings), "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [(finding.id, finding.status, finding.found, finding.mend or "-") for finding in findings]
        print_table(("check", "status", "found", "how to mend it"), rows)
    if not healthy(findings):
        if elsewhere and not as_json:
            say(elsewhere)
        raise click.exceptions.Exit(UNHEALTHY)
