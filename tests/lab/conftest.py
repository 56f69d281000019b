# SPDX-License-Identifier: GPL-2.0-or-later
"""Lab machines for tests: booted when first asked for, one alive at a time, gone when the session ends."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from lab_factory import Labs

from multiroot.errors import MultirootError
from multiroot.lab.lab import Lab, Options

SLOW = ("vmx",)  # folders with machines that Bochs emulates


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accel", help="of all lab machines; else KVM where it works")
    parser.addoption("--kernel", help="of the roots, in tests of the modules: this one in place of each")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`each_kernel` is each of the module's EACH: grouped by kernel, so that each is booted once."""
    if "each_kernel" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--kernel", None)
        kernels = [chosen] if chosen else metafunc.module.EACH
        metafunc.parametrize("each_kernel", kernels, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with what the old roots kept of others: a lab machine that has ended tells no more."""
    report = yield
    labs = getattr(item, "funcargs", {}).get("labs_factory")
    if report.failed and labs:
        try:
            report.sections += labs.kept()
        except MultirootError as error:
            report.sections.append(("messages of other roots", f"cannot be read: {error}"))
    return report


@pytest.fixture(scope="session")
def labs_factory(request: pytest.FixtureRequest) -> Iterator[Labs]:
    factory = Labs(request.config.getoption("--accel", None), request.config.getoption("--kernel", None))
    yield factory
    factory.close(keep_logs=bool(request.session.testsfailed))


@pytest.fixture
def lab(labs_factory: Labs) -> Lab:
    """A running lab with the usual machine, and the usual kernel or that of --kernel. Tests share it."""
    return labs_factory.get(kernel=labs_factory.kernel(Options.kernel))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here boots machines. The slowest ones come first, so that none of them is left for the end
    when files run two at a time.
    """
    for item in items:
        if "tests/lab" in str(item.path):
            item.add_marker(pytest.mark.lab)
    items.sort(key=lambda item: "tests/lab" in str(item.path) and item.path.parent.name not in SLOW)
