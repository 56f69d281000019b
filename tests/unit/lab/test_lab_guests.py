# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest images are called."""

from __future__ import annotations

import pytest

from multiroot.lab import recipes
from multiroot.lab.guests import COMMANDS, TICKER, image
from multiroot.rpc.border import VM_NAME


@pytest.mark.parametrize(
    "kernel", ["7.x", "6.1", "6.12.117+-0123abcd", "6.12.117-a-rather-long-name-0123abcd"]
)
def test_a_guest_of_another_kernel_has_a_name_that_agents_take(kernel: str) -> None:
    names = {image(kind, kernel) for kind in (TICKER, COMMANDS)}
    assert len(names) == 2
    assert all(VM_NAME.fullmatch(name) for name in names)


def test_that_of_the_labs_kernel_is_called_as_ever() -> None:
    assert image(TICKER) == image(TICKER, recipes.kernels().guest) == TICKER
