# SPDX-License-Identifier: GPL-2.0-or-later
"""Retiring lets go in order, says who resists, and gives back what it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from anything import json_with, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.errors import ConflictError, MultirootError
from multiroot.launch import retire

BUS_MASTER = 4


class Pci:
    """A bus in a folder. `drivers` of functions; those in `stuck` can't be unbound."""

    def __init__(self, sys: Path, drivers: dict[str, tuple[str, int]], stuck: tuple[str, ...] = ()) -> None:
        self.sys = sys
        for function, (driver, kind) in drivers.items():
            device, home = sys / f"bus/pci/devices/{function}", sys / f"bus/pci/drivers/{driver}"
            device.mkdir(parents=True)
            home.mkdir(parents=True, exist_ok=True)
            (device / "class").write_text(f"{kind:#x}\n")
            (device / "config").write_bytes(bytes([0, 0, 0, 0, BUS_MASTER | 3, 0, 0, 0]))
            (device / "driver").symlink_to(home)
            for switch in ("bind", "unbind"):
                if not (home / switch).exists():
                    (home / switch).write_text("")
            if function in stuck:
                (home / "unbind").unlink()
                os.mkfifo(home / "unbind")

    def said(self, driver: str, switch: str) -> str:
        return (self.sys / f"bus/pci/drivers/{driver}/{switch}").read_text()

    def command(self, function: str) -> int:
        return (self.sys / f"bus/pci/devices/{function}/config").read_bytes()[4]


DRIVERS = {
    "0000:00:01.0": ("pcieport", 0x060400),
    "0000:00:02.0": ("virtio-pci", 0x020000),
    "0000:01:00.0": ("nvme", 0x010802),
}


def test_devices_go_before_bridges_and_their_dma_stops(tmp_path: Path) -> None:
    pci = Pci(tmp_path, DRIVERS)
    done = retire.unbind_all(tmp_path / "record", tmp_path)
    assert [bound.function for bound in done] == ["0000:01:00.0", "0000:00:02.0", "0000:00:01.0"]
    assert pci.said("nvme", "unbind") == "0000:01:00.0"
    assert [pci.command(function) for function in DRIVERS] == [3, 3, 3]


def test_a_driver_that_clings_is_named_and_the_others_get_their_devices_back(tmp_path: Path) -> None:
    """A FIFO that nobody reads blocks the writer, as a driver does that waits for its device."""
    pci = Pci(tmp_path, DRIVERS, stuck=("0000:00:02.0",))
    with pytest.raises(ConflictError, match=r"virtio-pci does not let go of 0000:00:02.0: not within 0.1 s"):
        retire.unbind_all(tmp_path / "record", tmp_path, seconds=0.1)
    assert pci.said("nvme", "bind") == "0000:01:00.0"
    assert pci.said("pcieport", "unbind") == ""
    with (tmp_path / "bus/pci/drivers/virtio-pci/unbind").open() as released:
        assert released.read() == "0000:00:02.0"


def test_what_was_bound_is_bound_again_after_a_restart(tmp_path: Path) -> None:
    pci = Pci(tmp_path, DRIVERS)
    record = tmp_path / "record"
    retire.bind_again(record, tmp_path)
    retire.unbind_all(record, tmp_path)
    for function in ("0000:00:02.0", "0000:01:00.0"):
        (tmp_path / f"bus/pci/devices/{function}/driver").unlink()
    retire.bind_again(record, tmp_path)
    assert [pci.said(driver, "bind") for driver in ("virtio-pci", "nvme")] == ["0000:00:02.0", "0000:01:00.0"]
    assert pci.said("pcieport", "bind") == "", "its driver had not let go of it yet"
    assert not record.exists()


GOOD = [["0000:00:02.0", "virtio-pci"], ["0000:01:00.0", "nvme"]]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | (spoiled(GOOD) | json_with()).map(json.dumps).map(str.encode))
def test_the_root_goes_on_whatever_is_in_the_record(tmp_path: Path, data: bytes) -> None:
    record = tmp_path / "unbound.json"
    record.write_bytes(data)
    retire.bind_again(record, tmp_path / "sys", seconds=1)
    assert not (tmp_path / "sys").exists(), "nothing was written that is no switch of a driver"


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[["0000:00:02.0", "virt',
        '{"0000:00:02.0": "virtio-pci"}',
        '[["0000:00:02.0", "../../../leak"]]',
        '[["\\ud800", "nvme"]]',
        '[["0000:00:02.0"]]',
    ],
)
def test_a_damaged_record_is_told_with_a_way_to_give_devices_a_driver(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    pci = Pci(tmp_path, DRIVERS)
    record = tmp_path / "unbound.json"
    record.write_text(text)
    retire.bind_again(record, tmp_path)
    (line,) = caplog.messages
    assert line.startswith(f"devices stay without a driver: {record} is damaged: ")
    command = line.rpartition("`for ")[2].partition("`")[0].replace("/sys/", f"{tmp_path}/")
    subprocess.run(["sh", "-ec", f"for {command}"], check=True)
    assert (tmp_path / "bus/pci/drivers_probe").read_text() == "0000:01:00.0\n", "the last of them"
    assert pci.said("nvme", "bind") == ""
    # The next retire does not mind.
    retire.unbind_all(record, tmp_path)
    assert json.loads(record.read_text())[0] == ["0000:01:00.0", "nvme"]


def test_nothing_is_unbound_when_the_record_cannot_be_written(tmp_path: Path) -> None:
    pci = Pci(tmp_path, DRIVERS)
    with pytest.raises(MultirootError, match=r"cannot write .*unbound"):
        retire.unbind_all(tmp_path / "no folder" / "unbound", tmp_path)
    assert [pci.said(driver, "unbind") for driver in ("pcieport", "virtio-pci", "nvme")] == ["", "", ""]


def test_nobody_waits_for_a_driver_that_clings_until_it_takes_its_device_back(tmp_path: Path) -> None:
    pci = Pci(tmp_path, DRIVERS)
    record = tmp_path / "record"
    retire.unbind_all(record, tmp_path)
    for function in DRIVERS:
        (tmp_path / f"bus/pci/devices/{function}/driver").unlink()
    stuck = tmp_path / "bus/pci/drivers/nvme/bind"
    stuck.unlink()
    os.mkfifo(stuck)
    retire.bind_again(record, tmp_path, seconds=0.1)
    assert [pci.said(driver, "bind") for driver in ("virtio-pci", "pcieport")] == [
        "0000:00:02.0",
        "0000:00:01.0",
    ]
    assert stuck.read_text() == "0000:01:00.0"


def test_only_programs_are_counted_and_none_of_our_own() -> None:
    program = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        # For a moment after its start a process has no command line yet.
        assert other.stdout
        other.stdout.readline()
        found = retire.processes()
        assert other.pid in found
        assert not {1, os.getpid(), os.getppid()} & set(found)
        assert other.pid not in retire.processes(keep=[other.pid])
        assert other.stdin
        other.stdin.close()
