# SPDX-License-Identifier: GPL-2.0-or-later
"""One workstation for a session: it runs the tests that were chosen outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from workstations import Workstation

# A test outside waits for one inside, with deadlines of its own.
_FOREVER_S = 3600


@pytest.fixture(scope="session")
def workstation(request: pytest.FixtureRequest) -> Iterator[Workstation]:
    """Runs the tests inside that the chosen ones outside name by their parameter `inside`."""
    calls = (getattr(item, "callspec", None) for item in request.session.items)
    tests = [call.params["inside"] for call in calls if call and "inside" in call.params]
    machine = Workstation(tests)
    yield machine
    machine.end(keep_logs=bool(request.session.testsfailed))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine in a machine is slow: these run by a command of their own."""
    for item in items:
        if "tests/lab/kvm" in str(item.path):
            item.add_marker(pytest.mark.kvm)
            item.add_marker(pytest.mark.timeout(_FOREVER_S))
