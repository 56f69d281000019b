# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person expects kernels to say, and does not want to be told of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multiroot.errors import BadRequestError
from multiroot.verdict.findings import Finding, allowed
from multiroot.verdict.signs import Kind

_KEYS = {"text", "why", "kind", "where", "release"}


@dataclass(frozen=True)
class Allowed:
    """Findings whose first line or place in the code has `text`, for the reason `why`. What is ""
    fits all.
    """

    text: re.Pattern[str]
    why: str
    kind: str = ""
    where: str = ""
    release: str = ""

    def fits(self, finding: Finding) -> bool:
        """Whether it is about `finding`."""
        if self.kind and finding.kind != self.kind:
            return False
        if self.where and finding.source.where != self.where:
            return False
        if self.release and not finding.source.release.startswith(self.release):
            return False
        return bool(self.text.search(finding.text) or (finding.code and self.text.search(finding.code)))


def allow_list(name: object, data: Mapping[str, Any]) -> tuple[Allowed, ...]:
    """The entries (`[[allow]]`) of a parsed TOML file called `name`. Raises BadRequestError."""
    strange = sorted(set(data) - {"allow"})
    entries = data.get("allow", [])
    if strange or not isinstance(entries, list):
        hint = "it has entries [[allow]] with text and why"
        raise BadRequestError(f"{name}: not an allow list{f': {strange[0]}' if strange else ''}", hint)
    return tuple(_entry(f"{name}: entry {number}", entry) for number, entry in enumerate(entries, 1))


def _entry(name: str, entry: Any) -> Allowed:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise BadRequestError(f"{name}: not a table of strings")
    if strange := sorted(set(entry) - _KEYS):
        raise BadRequestError(f"{name}: no key {strange[0]!r}", f"there is {', '.join(sorted(_KEYS))}")
    for key in ("text", "why"):
        if not entry.get(key):
            raise BadRequestError(f"{name}: {key} is missing", "say what is allowed, and why")
    if entry.get("kind") and entry["kind"] not in set(Kind):
        raise BadRequestError(f"{name}: no kind {entry['kind']!r}", f"there is {', '.join(Kind)}")
    try:
        text = re.compile(entry["text"])
    except re.error as error:
        raise BadRequestError(f"{name}: text is no regular expression: {error}") from error
    return Allowed(text, **{key: value for key, value in entry.items() if key != "text"})


def apply(findings: Iterable[Finding], entries: Iterable[Allowed]) -> list[Finding]:
    """The findings, those that an entry is about marked with why they do not count."""
    known = tuple(entries)
    return [
        allowed(each, entry.why) if (entry := next((e for e in known if e.fits(each)), None)) else each
        for each in findings
    ]
