# SPDX-License-Identifier: GPL-2.0-or-later
"""A Chromium for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multiroot.errors import BadRequestError
from multiroot.page.picture import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# Not for longer than a module: while it lives, its driver's event loop runs, and tests that have one cannot.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        program = chromium()
    except BadRequestError as error:
        pytest.skip(str(error))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as drive:
        # Who runs as root, as CI does, cannot have Chromium's sandbox. It sees pages of our own only.
        started = drive.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots."""
    from page_driver import shots_folder

    return shots_folder(tmp_path_factory.mktemp("shots"))
