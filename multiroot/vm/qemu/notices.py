# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU tells of a guest by itself, in words; pure. The events are in QMP's reference, "run state"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiroot.vm.notices import PANICKED

_RESETS = {
    "guest-reset": "the guest rebooted",
    "host-qmp-system-reset": "the guest was reset",
    "guest-panic": "the guest was reset after a panic",
}
# In which a guest can never go on, by its name in query-status.
FATAL = {"internal-error": "KVM could not go on with the guest (internal error)"}


def told(event: str, data: Mapping[str, Any]) -> str:
    """What there is to tell of an event; empty if nothing."""
    if event == "RESET":
        reason = str(data.get("reason", "for no reason that it tells"))
        return _RESETS.get(reason, f"the guest was reset ({reason})")
    if event in ("GUEST_PANICKED", "GUEST_CRASHLOADED"):
        return PANICKED
    if event == "WATCHDOG":
        return f"the guest's watchdog fired: {data.get('action', 'nothing was done')}"
    if event == "MEMORY_FAILURE":
        return f"a page of the guest's memory is bad: {data.get('action', 'nothing was done')}"
    if event == "BLOCK_IO_ERROR":
        where = data.get("node-name") or "a disk"
        what = f"{where}: a {data.get('operation', 'request')} failed: {data.get('reason', 'no reason told')}"
        return f"{what}; the guest stands still" if data.get("action") == "stop" else what
    return ""
