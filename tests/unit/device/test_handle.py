# SPDX-License-Identifier: GPL-2.0-or-later
"""Device errors and the control page, without a module."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import pytest

from multiroot.device.control import ControlPage
from multiroot.device.errors import MEANINGS, ClaimError, NoDeviceError, refusal
from multiroot.device.handle import Device
from multiroot.device.uapi import CONTROL_SIZE, PeerIndex, lib
from multiroot.errors import MultirootError, WaitTimeoutError


def test_no_device_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NoDeviceError, match=r"multiroot\.ko is not loaded \(modprobe multiroot\)"):
        Device(tmp_path / "multiroot")


def test_a_file_that_is_not_the_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "multiroot"
    path.touch()
    with Device(path) as device, pytest.raises(MultirootError, match="Inappropriate ioctl"):
        device.info()


@pytest.mark.parametrize(
    ("operation", "number", "kind"),
    [
        ("CLAIM", errno.EBUSY, ClaimError),
        ("WRITE", errno.EPERM, ClaimError),
        ("CPU_START", errno.ETIMEDOUT, WaitTimeoutError),
    ],
)
def test_refusals_keep_their_kind(operation: str, number: int, kind: type[MultirootError]) -> None:
    error = refusal(operation, "cannot do it", number)
    assert type(error) is kind
    assert error.message.startswith("cannot do it: ")


def test_an_errno_nobody_foresaw_is_still_named() -> None:
    assert "No space left" in refusal("CARVE", "cannot carve", errno.ENOSPC).message


def test_every_ioctl_has_its_meanings() -> None:
    ioctls = {name.removeprefix("MULTIROOT_IOC_") for name in dir(lib) if name.startswith("MULTIROOT_IOC_")}
    assert ioctls - {"MAGIC"} <= MEANINGS.keys()


def test_the_two_halves_are_the_other_way_round_for_the_peer() -> None:
    memory = mmap.mmap(-1, CONTROL_SIZE)
    parent_view = ControlPage(memory, PeerIndex.CHILD)
    parent_view.mine.heartbeat = 7
    parent_view.theirs.boot_id = bytes(range(16))
    child_view = ControlPage(memory, PeerIndex.PARENT)
    assert child_view.theirs.heartbeat == 7
    assert child_view.mine.boot_id == bytes(range(16))
    with pytest.raises(ValueError, match="16 bytes"):
        child_view.mine.boot_id = b"short"


def test_a_closed_page_reads_as_an_absent_root() -> None:
    page = ControlPage(mmap.mmap(-1, CONTROL_SIZE), PeerIndex.CHILD)
    theirs = page.theirs
    theirs.state = lib.MULTIROOT_SIDE_READY
    page.close()
    assert theirs.state == lib.MULTIROOT_SIDE_ABSENT
