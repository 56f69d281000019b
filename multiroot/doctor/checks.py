# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a check, and the function that runs all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from multiroot.errors import MultirootError


class Status(StrEnum):
    """WARNING: it works, but with the disadvantage that `found` names. FAILED: something will not work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """The result of one check. `mend` says what to do about it; it is empty when there is nothing to do."""

    id: str
    status: Status
    found: str
    mend: str = ""


Answer = tuple[Status, str, str]
Check = Callable[[], Answer]


def ok(found: str) -> Answer:
    return Status.OK, found, ""


def warning(found: str, mend: str) -> Answer:
    return Status.WARNING, found, mend


def failed(found: str, mend: str) -> Answer:
    return Status.FAILED, found, mend


def examine(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """Run every check. One that raises an error has failed; the error's hint becomes `mend`."""
    return [_one(name, check) for name, check in checks]


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing failed; warnings are no failures."""
    return all(finding.status is not Status.FAILED for finding in findings)


def _one(name: str, check: Check) -> Finding:
    try:
        return Finding(name, *check())
    except MultirootError as error:
        return Finding(name, Status.FAILED, error.message, error.hint)
    except OSError as error:
        return Finding(name, Status.FAILED, f"{error.filename}: {error.strerror}", "run it as root, on Linux")
