# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from kexec.x86.bzimage import BzImage
from plan.strategies import machine

from multiroot.cli import planning
from multiroot.cli.kexec import kexec
from multiroot.cli.plan import plan
from multiroot.cli.planning import parse_request
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.launch import facts as machines
from multiroot.launch import session
from multiroot.launch.facts import Facts
from multiroot.plan.request import CARVE_FLOOR, Request
from multiroot.ranges import Range
from multiroot.units import GIB, MIB

NOTHING: dict[str, Any] = {"cpus": "", "cpu_count": None, "carve": "", "low_window": "", "pmem": True}


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of the planner's tests, without the module."""
    for command in ("kexec", "plan"):
        name = f"multiroot.cli.{command}"
        monkeypatch.setattr(sys.modules[name], "open_device", lambda required: None)
    for module in (session, machines):
        monkeypatch.setattr(module, "take_inventory", lambda device, facts: machine())
    facts = Facts(root=1, next_root=2, boot_hardware_id=0, tsc_khz=2_000_000, wide_ids=True)
    monkeypatch.setattr(machines, "facts_without_module", lambda: facts)


def run(group: click.Group, *words: str) -> Result:
    result = CliRunner().invoke(group, words, standalone_mode=False)
    if result.exception and not isinstance(result.exception, MultirootError | click.ClickException):
        raise result.exception
    return result


def test_options_become_requests() -> None:
    assert parse_request(**NOTHING) == Request(needed=CARVE_FLOOR)
    full = {
        "cpus": "2-3",
        "cpu_count": None,
        "carve": "1G@0x118000000",
        "low_window": "128K@0x40000",
        "pmem": False,
    }
    assert parse_request(**full, needed=5) == Request(
        cpus=(2, 3),
        carve_size=GIB,
        carve_base=0x1_1800_0000,
        low=Range(0x40000, 0x20000),
        needed=5,
        pmem=False,
    )


@pytest.mark.parametrize(
    "change",
    [{"low_window": "128K"}, {"cpus": "2", "cpu_count": 1}, {"carve": "x"}, {"low_window": "128K@8192T"}],
)
def test_malformed_options(change: dict[str, Any]) -> None:
    with pytest.raises((click.UsageError, BadRequestError)):
        parse_request(**{**NOTHING, **change})


def test_requests_describe_themselves_as_options() -> None:
    """What an error suggests can be typed in."""
    request = Request(
        cpus=(2, 3), carve_size=GIB, carve_base=4 * GIB, low=Range(0x40000, 0x20000), pmem=False
    )
    seen: list[Request] = []

    @click.command()
    @planning.request_options
    def command(**options: Any) -> None:
        seen.append(parse_request(**options))

    CliRunner().invoke(command, request.describe().split(), standalone_mode=False, catch_exceptions=False)
    assert seen == [request]


def test_plan_show() -> None:
    data = json.loads(run(plan, "show", "--json", "--carve", "512M").output)
    assert data["carve"] == {"base": 4 * GIB + 512 * MIB, "size": 512 * MIB}
    text = run(plan, "show", "--carve", "512M").output
    assert "0x120000000-0x13fffffff (512 MiB), reserved at boot" in text
    assert isinstance(run(plan, "show", "--cpus", "0").exception, ConflictError)


def test_plan_inventory() -> None:
    assert len(json.loads(run(plan, "inventory", "--json").output)["cpus"]) == 4
    assert "free, reserved at boot" in run(plan, "inventory").output


def test_dry_run_prints_everything(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(BzImage().build())
    (tmp_path / "initrd").write_bytes(b"070701")
    words = (
        "load",
        str(tmp_path / "vmlinuz"),
        "--initrd",
        str(tmp_path / "initrd"),
        "--append",
        "quiet",
        "-n",
    )
    data = json.loads(run(kexec, *words, "--json").output)
    text = run(kexec, *words).output
    assert data["command_line"].endswith("nox2apic multiroot.shared=0x120200000 multiroot.root=2 quiet")
    assert data["command_line"] in text
    for entry in data["memory"]:
        assert f"{entry['base']:#014x}" in text
    assert [segment["what"] for segment in data["segments"]][-2:] == ["kernel", "initrd"]
    for value in data["entry"].values():
        assert f"{value:#x}" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["initrd", "vmlinuz"]
