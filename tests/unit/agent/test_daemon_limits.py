# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent allows itself at its start."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot.agent import daemon
from multiroot.agent.daemon import allow_files
from multiroot.errors import MultirootError


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


def test_an_agent_that_does_not_start_says_why_where_the_other_root_hears_it(tmp_path: Path) -> None:
    kmsg = tmp_path / "kmsg"
    daemon.tell_kernel(MultirootError("no arena", "make one"), kmsg)
    assert kmsg.read_text() == "<3>multirootd: no arena (make one)\n"
    daemon.tell_kernel(MultirootError("no arena"), tmp_path / "none/kmsg")
