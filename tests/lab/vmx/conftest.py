# SPDX-License-Identifier: GPL-2.0-or-later
"""Intel machines for tests: one alive at a time, booted again when a test has spoiled it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vmx_machines import Machines


@pytest.fixture(scope="module")  # none is left to take CPU time from what comes next
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    factory = Machines()
    yield factory
    factory.close(keep_logs=bool(request.session.testsfailed))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bochs is slow: these run by a command of their own."""
    for item in items:
        if "tests/lab/vmx" in str(item.path):
            item.add_marker(pytest.mark.vmx)
