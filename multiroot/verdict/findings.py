# SPDX-License-Identifier: GPL-2.0-or-later
"""Every trouble in a console's text, with who said it, when, where in the code, and the lines around it.

A report goes from its first line to the kernel's end mark, to a pause, or to the next report of another kind.
An oops that ends in a panic is two findings: both are said, and either may be allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from multiroot.verdict import taint
from multiroot.verdict.lines import Line, parse
from multiroot.verdict.signs import Kind, kind_of

LAST = 40  # lines kept of what was said, the report included
_REPORT_MOST = 120  # lines: a backtrace of all CPUs ends somewhere
_PAUSE_S = 2.0  # of the kernel's clock without a line, after which what follows is something else
_BANNER = re.compile(r"Linux version (?P<release>\S+)")
_END = re.compile(r"---\[ end (?:trace|Kernel panic)|={10,}$")
_PLACE = r"(?P<place>[A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?)"
_CODE = re.compile(r"(?:RIP: 0010:|pc : |(?:NIP|epc) :? ?|\bat (?:\S+:\d+ )?|\bin )" + _PLACE)
_FRAME = re.compile(r"^\s*(?:\? )?" + _PLACE)
_BY = re.compile(r"\bPID: (?P<pid>\d+)\b.*?\bComm: (?P<comm>.+?) (?:Not tainted|Tainted:)")
# One event is told of by several lines; the first of them names it.
_PARTS = {
    Kind.OOPS: {Kind.OOPS, Kind.KASAN},
    Kind.BUG: {Kind.OOPS},
    Kind.KASAN: {Kind.OOPS},
    Kind.RCU: {Kind.RCU},
    Kind.OOM: {Kind.OOM},
    Kind.KMEMLEAK: {Kind.KMEMLEAK},
}


@dataclass(frozen=True)
class Source:
    """Who speaks: `where` is "old", "new" or a guest; `release` is the kernel's, "" until it has told it;
    `boot` counts the kernels that spoke there, from 1.
    """

    where: str
    release: str = ""
    boot: int = 1

    def same_kernel(self, other: Source) -> bool:
        """Whether one kernel is meant; not everybody knows its release."""
        return (self.where, self.boot) == (other.where, other.boot)

    def __str__(self) -> str:
        told = f" ({self.release})" if self.release else ""
        return f"{self.where}{told}" + (f", kernel {self.boot} there" if self.boot > 1 else "")


@dataclass(frozen=True)
class Finding:
    """One report. `seconds` is when, on that kernel's clock. `code` is where it says that it was
    ("func+0x1/0x2 [module]"), `task` which program ran. `report` are its lines, `before` those that came
    before, LAST of both together at most unless the report alone is longer. `allowed` is why it does not
    count, or "".
    """

    kind: Kind
    text: str
    source: Source
    seconds: float | None = None
    code: str = ""
    task: str = ""
    taints: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()  # of source, by `verdict.symbols`
    allowed: str = ""

    @property
    def last(self) -> tuple[str, ...]:
        """What to show: the report and what led to it."""
        return (*self.before, *self.report)

    @property
    def headline(self) -> str:
        """The finding in one line."""
        at = "" if self.seconds is None else f" at {self.seconds:.6f} s"
        place = f" in {self.code}" if self.code and self.code not in self.text else ""
        return f"{self.kind} in {self.source}{at}: {self.text}{place}"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def boots(raw: Iterable[str]) -> int:
    """How many kernels tell in the lines of a console who they are."""
    return sum(bool(_BANNER.match(parse(each).text)) for each in raw)


def find(raw: Iterable[str], where: str, release: str = "", boot: int = 1) -> list[Finding]:
    """Every report in the lines of a console, in their order. `release` and `boot` are of the kernel that
    speaks first, if its banner is not among them.
    """
    source = Source(where, release, boot)
    found: list[Finding] = []
    lines = [parse(each) for each in raw]
    spoke = False
    at = 0
    while at < len(lines):
        banner = _BANNER.match(lines[at].text)
        if banner:
            source = Source(where, banner["release"], source.boot + 1 if spoke else source.boot)
            spoke = True
        kind = kind_of(lines[at].text)
        if kind is None:
            at += 1
            continue
        end = _end_of(lines, at, kind)
        found.append(_finding(lines, at, end, kind, source))
        at = end
    return found


def _end_of(lines: Sequence[Line], start: int, kind: Kind) -> int:
    """The first line that does not belong to the report from `start` on."""
    for at in range(start + 1, min(start + _REPORT_MOST, len(lines))):
        line = lines[at]
        other = kind_of(line.text)
        # Reports of one event follow one another at once; what comes later is an event of its own.
        if other and other not in _PARTS.get(kind, set()):
            return at
        if _BANNER.match(line.text) or _paused(lines[at - 1], line):
            return at
        if at > start + 1 and _END.match(line.text):
            return at + 1
    return min(start + _REPORT_MOST, len(lines))


def _paused(one: Line, other: Line) -> bool:
    if one.seconds is None or other.seconds is None:
        return False
    return other.seconds - one.seconds > _PAUSE_S


def _finding(lines: Sequence[Line], start: int, end: int, kind: Kind, source: Source) -> Finding:
    report = tuple(line.text for line in lines[start:end])
    first = max(0, end - max(LAST, end - start))
    by = next((match for text in report if (match := _BY.search(text))), None)
    return Finding(
        kind=kind,
        text=report[0],
        source=source,
        seconds=lines[start].seconds,
        code=next((match["place"] for text in report if (match := _CODE.search(text))), ""),
        task=f"{by['comm']}[{by['pid']}]" if by else "",
        taints=tuple(dict.fromkeys(str(each) for text in report for each in taint.told(text))),
        report=report,
        before=tuple(line.text for line in lines[first:start]),
        frames=tuple(match["place"] for text in report if (match := _FRAME.match(text))),
    )


def of_taint(number: int, modules: dict[str, str], source: Source, seen: Iterable[Finding]) -> list[Finding]:
    """Flags of /proc/sys/kernel/tainted that mean trouble which no finding in `seen` of that kernel
    explains.
    """
    explained = {
        "W": {Kind.WARNING, Kind.LOCKDEP, Kind.UBSAN, Kind.ALLOCATION},
        "D": {Kind.OOPS, Kind.BUG, Kind.PANIC, Kind.KASAN},
        "L": {Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP},
        "B": {Kind.BUG, Kind.KASAN, Kind.KFENCE},
        "M": {Kind.MACHINE_CHECK},
    }
    kinds = {each.kind for each in seen if each.source.same_kernel(source)}
    return [
        Finding(Kind.TAINT, f"the kernel is tainted: {each}", source, taints=(str(each),))
        for each in taint.flags(number, modules)
        if each.trouble and not explained.get(each.letter, set()) & kinds
    ]


def allowed(finding: Finding, why: str) -> Finding:
    """The same, but it does not count, because of `why`."""
    return replace(finding, allowed=why)
