# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings that all unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio
import pytest
from hypothesis import settings

# No test may fail because the machine is busy.
settings.register_profile("multiroot", deadline=None)
settings.load_profile("multiroot")


@pytest.fixture(scope="session", autouse=True)
def no_labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Labs that this user has are not seen: a command that is told no agent would speak to one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def grpc_stays_up() -> None:
    """Gives grpc.aio a user that never goes.

    Without one it ends its polling thread with the last channel, and that may be when the garbage collector
    finds the channel: the collecting thread then waits for one that waits for an event loop that is gone.
    """
    grpc.aio.init_grpc_aio()
