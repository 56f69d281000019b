# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing ends a root that owns VMs: whatever ends one asks here first.

The owner words in the arena decide, so this works without an agent. A machine without an arena has no VMs. An
arena that cannot be read may hold any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from multiroot.arena.arena import Arena, no_root_is_dead, open_if_made
from multiroot.arena.backing import find_device, find_devices
from multiroot.arena.layout import CANARY
from multiroot.device.handle import Device
from multiroot.errors import ConflictError, MultirootError

log = logging.getLogger(__name__)


class OwnsVmsError(ConflictError):
    """A root is not ended, for it owns VMs, or nobody can tell whether it does."""


def find_arena(root: int, root_is_dead: Callable[[int], bool] = no_root_is_dead) -> Arena | None:
    """This machine's arena, opened as root number `root`; None if there is none. Raises MultirootError."""
    if not find_devices():
        return None
    return open_if_made(find_device().node, root, root_is_dead)


@contextmanager
def ending_child(device: Device, root: int, *, force: bool, hint: str) -> Iterator[tuple[str, ...]]:
    """Let the body end the new root `root`; yields the names of the VMs that are lost with it.

    Raises OwnsVmsError with `hint`, before the body, when that root lives and owns a VM, unless `force`. A
    root that has ended by the ledger has lost its VMs already; one that is silent may live. No root starts
    a VM meanwhile. When the arena cannot be read, `force` goes on, and what is yielded says that the names
    are not known. An update's canary is nobody's VM, and nobody misses it.
    """
    dead = device.has_ended(root)
    with ExitStack() as stack:
        try:
            arena = find_arena(device.info().root, device.has_ended)
            if arena is not None:
                stack.enter_context(closing(arena))
                stack.enter_context(arena.held())
            names = tuple(name for name in arena.vms_of(root) if name != CANARY) if arena else ()
        except MultirootError as error:
            if not force:
                raise _unknown(f"root {root}", error, hint) from error
            names = (f"unknown, for the arena can not be read: {error.message}",)
        if names and not (dead or force):
            raise OwnsVmsError(f"root {root} owns {_list(names)}", hint)
        if names:
            log.warning("root %d is ended, and these VMs are lost: %s", root, ", ".join(names))
        yield names


def check_own_end(root: int) -> None:
    """Raises OwnsVmsError when this root, number `root`, must not end: it owns a VM, or nobody can tell."""
    hint = "hand them over or stop them: `multiroot vm list` shows them"
    try:
        arena = find_arena(root)
        if arena is None:
            return
        with closing(arena):
            names = arena.vms_of(root)
    except MultirootError as error:
        raise _unknown("this root", error, "see `multiroot doctor`") from error
    if names:
        raise OwnsVmsError(f"this root owns {_list(names)}", hint)


def _list(names: tuple[str, ...]) -> str:
    return f"VM {names[0]}" if len(names) == 1 else f"VMs {', '.join(names)}"


def _unknown(who: str, error: MultirootError, hint: str) -> OwnsVmsError:
    return OwnsVmsError(f"nobody can tell whether {who} owns VMs: {error.message}", hint)
