# SPDX-License-Identifier: GPL-2.0-or-later
"""Phases as messages."""

from __future__ import annotations

from sys import intern

from multiroot.phases import Phase
from multiroot.rpc.v1 import common_pb2


def to_proto(phase: Phase) -> common_pb2.Phase:
    """The message for a phase that has started (no duration yet) or ended."""
    return common_pb2.Phase(
        name=phase.name,
        side=phase.side,
        start_ns=phase.start_ns,
        duration_ns=phase.duration_ns or 0,
        running=phase.duration_ns is None,
        blackout=phase.blackout,
        ok=phase.ok,
        attrs={key: str(value) for key, value in phase.attrs.items()},
    )


def from_proto(message: common_pb2.Phase) -> Phase:
    """The phase a message means; attributes come back as text.

    Names are few, and agents keep many phases: they share them.
    """
    return Phase(
        name=intern(message.name),
        side=intern(message.side),
        start_ns=message.start_ns,
        duration_ns=None if message.running else message.duration_ns,
        blackout=message.blackout,
        ok=message.ok,
        attrs={intern(key): value for key, value in message.attrs.items()},
    )
