# SPDX-License-Identifier: GPL-2.0-or-later
"""An allow list leaves out what it says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_samples import BANNER, KASAN, WARNING

from multiroot.errors import BadRequestError
from multiroot.verdict.allow import allow_list, apply
from multiroot.verdict.findings import find


def marked(**entry: str) -> list[str]:
    findings = find([BANNER, *WARNING.splitlines(), *KASAN.splitlines()], "new")
    return [
        each.allowed for each in apply(findings, allow_list("a.toml", {"allow": [{"why": "x", **entry}]}))
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"text": "frob_pages"}, ["x", ""]),
        ({"text": r"\[frob\]"}, ["", "x"]),
        ({"text": ".", "kind": "kasan"}, ["", "x"]),
        ({"text": ".", "where": "old"}, ["", ""]),
        ({"text": ".", "where": "new"}, ["x", "x"]),
        ({"text": ".", "release": "6.12"}, ["x", "x"]),
        ({"text": ".", "release": "6.1.0"}, ["", ""]),
    ],
)
def test_what_fits(entry: dict[str, str], expected: list[str]) -> None:
    assert marked(**entry) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"alow": []}, "not an allow list: alow"),
        ({"allow": {}}, "not an allow list"),
        ({"allow": ["x"]}, "entry 1: not a table of strings"),
        ({"allow": [{"text": 1, "why": "x"}]}, "not a table of strings"),
        ({"allow": [{"text": "x"}]}, "entry 1: why is missing"),
        ({"allow": [{"text": "", "why": "x"}]}, "text is missing"),
        ({"allow": [{"text": "(", "why": "x"}]}, "no regular expression"),
        ({"allow": [{"text": "x", "why": "x", "kind": "warn"}]}, "no kind 'warn'"),
        ({"allow": [{"text": "x", "why": "x", "place": "y"}]}, "no key 'place'"),
    ],
)
def test_what_is_no_allow_list(data: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=r"^a\.toml") as caught:
        allow_list("a.toml", data)
    assert says in str(caught.value)


def test_an_empty_one_allows_nothing() -> None:
    assert allow_list("a.toml", {}) == ()
