# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m multiroot.audit.document`: writes the tables of docs/global-state.md from the rows."""

from __future__ import annotations

from pathlib import Path

from multiroot import markdown
from multiroot.audit import rows
from multiroot.audit.rows import Owner, Phase, Row, Rows
from multiroot.lab import paths

BEGIN = "<!-- from qemu-lab/global-state.toml by `python -m multiroot.audit.document` -->"
END = "<!-- end -->"
_ACCESS = {"r": "read", "w": "write", "rw": "read and write"}


def path() -> Path:
    return paths.source_dir() / "docs/global-state.md"


def tables(found: Rows) -> str:
    """All that the rows say, for people."""
    owners = [
        "| state | where | launch | both | handoff | retire | after | how it passes on |",
        "|---|---|---|---|---|---|---|---|",
        *(_owner_line(row) for row in found.row),
    ]
    trust = [
        "| state | enforced | trusted | shown by | not shown |",
        "|---|---|---|---|---|",
        *(
            markdown.row(row.name, row.enforced, row.trusted, _shown(row), row.unseen or "-")
            for row in found.row
        ),
    ]
    allowed = [
        "| state | who | when | what | why |",
        "|---|---|---|---|---|",
        *(line for row in found.row for line in _allowed_lines(row)),
    ]
    return "\n".join(
        [*owners, "", *trust, "", "What a root may do with state it does not own:", "", *allowed]
    )


def updated(text: str, found: Rows) -> str:
    """`text` with what stands between the marks made anew; raises BadRequestError if it has none."""
    before, after = markdown.around(text, path(), BEGIN, END)
    return f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{after}"


def _owner_line(row: Row) -> str:
    where = [_where(row), *(f"MSR {span}" for span in row.msrs)]
    owners = [_bold(row.owner[phase]) for phase in Phase]
    return markdown.row(row.name, ", ".join(filter(None, where)) or "memory", *owners, row.passes)


def _where(row: Row) -> str:
    return ", ".join(str(span) for span in row.at)


def _shown(row: Row) -> str:
    rule = {
        "": "",
        "ipi": "; each interrupt by whom it reaches",
        "msi": "; each interrupt by whom it reaches",
    }
    return ", ".join(row.checks()) + rule[row.rule]


def _bold(owner: Owner) -> str:
    return "**nobody**" if owner is Owner.NOBODY else owner.value


def _allowed_lines(row: Row) -> list[str]:
    found = []
    for allow in row.allow:
        what = f"{_ACCESS[allow.access]} {allow.at}"
        if allow.select:
            what += f", register {allow.select}"
        if allow.value:
            what += f", of a value with bits {allow.value.mask:#x} = {allow.value.value:#x}"
        found.append(markdown.row(row.name, allow.root.value, ", ".join(allow.phases), what, allow.why))
    return found


if __name__ == "__main__":
    path().write_text(updated(path().read_text(), rows.load()))
