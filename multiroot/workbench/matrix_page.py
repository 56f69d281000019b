# SPDX-License-Identifier: GPL-2.0-or-later
"""A matrix's results as one HTML page, with links to what each trial has left. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from multiroot.workbench.matrix import Cell, Matrix, Result, rows

_STYLE = """
body { font: 15px/1.4 sans-serif; margin: 2em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid #bbb; padding: .4em .8em; text-align: left; vertical-align: top; }
.good { background: #d9f2d9; } .bad { background: #f6cccc; }
.untested { background: #f3ecc4; } .open { color: #777; }
small { color: #555; }
"""
_CLASSES = {"good": "good", "bad": "bad", "not tested": "untested", "not yet": "open"}
FILES = ("report.json", "stdout.txt", "stderr.txt", "console-old.log", "console-new.log", "junit.xml")


def page(matrix: Matrix, results: Sequence[Result], there: frozenset[str]) -> str:
    """One table for each machine, backend, guest and place, old kernels downward and new ones across.

    `there` are the files that trials have left, by their path from the page.
    """
    found = dict(rows(matrix, results))
    groups = dict.fromkeys((cell.machine, cell.backend, cell.guest, cell.where) for cell in found)
    body = "".join(_table(matrix, found, group, there) for group in groups)
    counted = [each.word for each in found.values()]
    told = ", ".join(f"{counted.count(word)} {word}" for word in _CLASSES if word in counted)
    command = escape(" ".join(matrix.command)) or "the standard job"
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><title>multiroot try: matrix</title>'
        f"<style>{_STYLE}</style></head>\n"
        f"<body><h1>{command}</h1><p>{told}</p>\n{body}</body></html>\n"
    )


def _table(
    matrix: Matrix, found: dict[Cell, Result], group: tuple[str, str, str, str], there: frozenset[str]
) -> str:
    head = "".join(f"<th>{escape(new)}</th>" for new in matrix.new)
    lines = [f"<tr><th>old \\ new</th>{head}</tr>"]
    for old in matrix.old:
        cells = "".join(_cell(found.get(Cell(old, new, *group)), there) for new in matrix.new)
        lines.append(f"<tr><th>{escape(old)}</th>{cells}</tr>")
    table = "\n".join(lines)
    machine, backend, guest, where = map(escape, group)
    title = f"machine {machine}, backend {backend}, guest {guest}, in {where}"
    return f"<h2>{title}</h2>\n<table>\n{table}\n</table>\n"


def _cell(result: Result | None, there: frozenset[str]) -> str:
    if result is None:
        return '<td class="open">left out</td>'
    links = [
        f'<a href="{escape(result.cell.name)}/{name}">{name.partition(".")[0]}</a>'
        for name in FILES
        if f"{result.cell.name}/{name}" in there
    ]
    told = f"{result.word} ({result.code})" if result.code is not None else result.word
    took = f" <small>{result.seconds:.0f} s</small>" if result.seconds else ""
    said = f"<br><small>{escape(result.said)}</small>" if result.said and result.code else ""
    return f'<td class="{_CLASSES[result.word]}">{told}{took}<br>{" ".join(links)}{said}</td>'
