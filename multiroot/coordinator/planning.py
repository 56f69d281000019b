# SPDX-License-Identifier: GPL-2.0-or-later
"""What a launch is to be: read, planned and built before anything is changed.

The steps import this when they are taken. An agent that starts need not wait for the planner and for all that
knows how a kernel is entered.
"""

from __future__ import annotations

from multiroot.coordinator.coordinator import Data
from multiroot.coordinator.steps import LaunchContext
from multiroot.launch import kernels
from multiroot.launch.facts import facts_of
from multiroot.launch.given import PARENT
from multiroot.launch.session import Prepared, prepare
from multiroot.plan.request import Request
from multiroot.rpc.keys import Keys
from multiroot.rpc.token_file import TOKEN_FILE
from multiroot.units import parse_cpu_list


def prepare_launch(context: LaunchContext, request: Data, keys: Keys | None = None) -> Prepared:
    """Read, plan and build: whatever is wrong with a request is found here, before anything is changed.

    `keys` are those of the new root.
    """

    def wanted(needed: int) -> Request:
        return Request(
            cpus=parse_cpu_list(request["cpus"]) if request["cpus"] else None,
            carve_size=request["carve_size"] or None,
            carve_base=request["carve_base"] or None,
            needed=needed,
        )

    files = kernels.find(request["kernel"], request["initrd"], context.kernels)
    given = {f"{PARENT}/{name}": data for name, data in keys.files().items()} if keys else {}
    if context.token.exists():
        given[TOKEN_FILE.name] = context.token.read_bytes()
    return prepare(context.device, facts_of(context.device), files, request["append"], wanted, given)
