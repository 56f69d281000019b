# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests as the journal keeps them, and how one differs from the update under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiroot.rpc.v1 import coordinator_pb2
from multiroot.units import format_cpu_list, format_size, parse_cpu_list

if TYPE_CHECKING:
    from multiroot.coordinator.coordinator import Data


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


def differences(named: Data, planned: Data) -> list[str]:
    """What the request `named` asks for that the update under way has otherwise, in words; empty if nothing.

    `planned` is what the plan step has left. What a request leaves out is no difference, and what the planner
    chose counts like what was asked for. How long to wait for the new root may differ. Raises BadRequestError
    for CPUs that are no list.
    """
    had: Data = planned.get("request") or {}
    if text := planned.get("plan"):
        # As in `steps`: an agent that starts has nothing to plan.
        from multiroot.plan.planner import Plan

        made = Plan.from_json(text)
        carve = {"carve_size": made.carve.size, "carve_base": made.carve.base}
        had = {**had, "cpus": format_cpu_list([cpu.number for cpu in made.cpus]), **carve}
    asked, has = _words(named), _words(had)
    return [_difference(what, has[what], word) for what, word in asked.items() if word not in ("", has[what])]


def _difference(what: str, has: str, asked: str) -> str:
    if not has:
        return f"without {what} {asked}"
    return f"{'to' if what == 'kernel' else 'with'} {what} {has}, not {asked}"


def _words(request: Data) -> dict[str, str]:
    """What a request names, as a message says it; "" for what it leaves out."""
    size, base = request.get("carve_size"), request.get("carve_base")
    append = " ".join(request.get("append", "").split())
    return {
        "kernel": request.get("kernel", ""),
        "initrd": request.get("initrd", ""),
        "CPUs": format_cpu_list(parse_cpu_list(request.get("cpus", ""))),
        "a carve of": format_size(size) if size else "",
        "a carve at": f"{base:#x}" if base else "",
        "parameters": repr(append) if append else "",
    }
