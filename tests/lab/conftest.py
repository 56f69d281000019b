# SPDX-License-Identifier: GPL-2.0-or-later
"""Lab machines for tests: booted when first asked for, one alive at a time, gone when the session ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_factory import Labs

from multiroot.lab.lab import Lab

SLOW = ("vmx",)  # folders with machines that Bochs emulates


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accel", help="of all lab machines; else KVM where it works")


@pytest.fixture(scope="session")
def labs_factory(request: pytest.FixtureRequest) -> Iterator[Labs]:
    factory = Labs(request.config.getoption("--accel", None))
    yield factory
    factory.close(keep_logs=bool(request.session.testsfailed))


@pytest.fixture
def lab(labs_factory: Labs) -> Lab:
    """A running lab with the usual kernel and machine, shared between tests."""
    return labs_factory.get()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here boots machines. The slowest ones come first, so that none of them is left for the end
    when files run two at a time.
    """
    for item in items:
        if "tests/lab" in str(item.path):
            item.add_marker(pytest.mark.lab)
    items.sort(key=lambda item: "tests/lab" in str(item.path) and item.path.parent.name not in SLOW)
