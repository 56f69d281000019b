# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that fail in any way become one finding each, and none stops the others."""

from __future__ import annotations

from multiroot.doctor.checks import Answer, Finding, Status, examine, failed, healthy, ok, warning
from multiroot.errors import ConflictError


def refused() -> Answer:
    raise ConflictError("something holds it", "end it")


def unreadable() -> Answer:
    raise PermissionError(13, "Permission denied", "/proc/iomem")


def test_each_check_gives_one_finding() -> None:
    findings = examine([
        ("a", lambda: ok("fine")),
        ("b", refused),
        ("c", unreadable),
        ("d", lambda: warning("slow", "wait")),
    ])  # fmt: skip
    assert findings == [
        Finding("a", Status.OK, "fine"),
        Finding("b", Status.FAILED, "something holds it", "end it"),
        Finding("c", Status.FAILED, "/proc/iomem: Permission denied", "run it as root, on Linux"),
        Finding("d", Status.WARNING, "slow", "wait"),
    ]
    assert not healthy(findings)


def test_warnings_are_no_failures() -> None:
    assert healthy(examine([("a", lambda: ok("fine")), ("b", lambda: warning("slow", "wait"))]))
    assert not healthy(examine([("a", lambda: failed("bad", "mend"))]))
