# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent allows itself at its start."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from multiroot.agent.daemon import allow_files


@pytest.fixture
def few_files() -> Iterator[int]:
    """A process that may have few open files, and how many it could have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 256), before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_as_many_files_as_it_may_have(few_files: int) -> None:
    allow_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few_files, few_files)
