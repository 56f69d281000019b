# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests as the journal keeps them."""

from __future__ import annotations

from multiroot.coordinator.coordinator import Data
from multiroot.rpc.v1 import coordinator_pb2


def request_data(request: coordinator_pb2.LaunchRequest) -> Data:
    """A launch request as the journal keeps it."""
    return {
        "kernel": request.kernel,
        "initrd": request.initrd,
        "cpus": request.cpus,
        "carve_size": request.carve_size,
        "carve_base": request.carve_base,
        "append": request.append,
        "join_timeout_s": request.join_timeout_s,
    }
