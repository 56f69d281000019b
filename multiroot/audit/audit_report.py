# SPDX-License-Identifier: GPL-2.0-or-later
"""What an audit saw, row by row, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from multiroot.audit.judge import Seen, Violation
from multiroot.audit.rows import Phase, Role, Row, Rows
from multiroot.verdict.points import Outcome, Point, point


@dataclass(frozen=True)
class Audit:
    """One audited run. `claims` are those of the demo that was audited, `rings` counts doorbells."""

    rows: Rows
    seen: tuple[Seen, ...]
    violations: tuple[Violation, ...]
    claims: tuple[Point, ...]
    accesses: int
    trace_bytes: int
    msr_writes: dict[Role, int]
    rings: int

    @property
    def failed(self) -> tuple[str, ...]:
        """The demo's claims that did not hold, with what was seen."""
        return tuple(f"{each.claim}: {each.seen}" for each in self.claims if each.outcome is Outcome.FAILED)

    @property
    def held(self) -> bool:
        return not self.violations and not self.failed

    def broken(self, row: Row) -> list[Violation]:
        return [violation for violation in self.violations if violation.row == row.id]

    def counts(self, row: Row, who: str, phases: Iterable[Phase] = tuple(Phase)) -> tuple[int, int]:
        """Reads and writes by `who` in these phases."""
        found = [seen for seen in self.seen if (seen.row, seen.who) == (row.id, who) and seen.phase in phases]
        return sum(seen.reads for seen in found), sum(seen.writes for seen in found)

    def points(self) -> list[Point]:
        """A point for each row and for each claim of the demo."""
        rows = []
        for row in self.rows.row:
            broken = self.broken(row)
            details = [f"phase {each.phase}: {each.who} {each.what}, {each.count} times" for each in broken]
            seen = f"{len(broken)} violations" if broken else "only its owner touched it"
            rows.append(point(f"{row.id} {row.name}", not broken, seen, details))
        return [*rows, *self.claims]

    def to_json(self) -> dict[str, Any]:
        return {
            "held": self.held,
            "phases": [phase.value for phase in Phase if any(seen.phase is phase for seen in self.seen)],
            "trace": {"accesses": self.accesses, "bytes": self.trace_bytes},
            "msr_writes": {role.value: self.msr_writes[role] for role in Role},
            "doorbells": self.rings,
            "demo_failed": list(self.failed),
            "rows": [
                {
                    "id": row.id,
                    "name": row.name,
                    "held": not self.broken(row),
                    "checks": row.checks(),
                    "owner": {phase.value: row.owner[phase].value for phase in Phase},
                    "seen": [
                        {key: value for key, value in asdict(seen).items() if key != "row"}
                        for seen in self.seen
                        if seen.row == row.id
                    ],
                    "violations": [
                        {key: value for key, value in asdict(violation).items() if key != "row"}
                        for violation in self.broken(row)
                    ],
                }
                for row in self.rows.row
            ],
        }
