# SPDX-License-Identifier: GPL-2.0-or-later
"""Which PCI functions a root takes over, told once and still known to the agent's successor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiroot.coordinator import heir as heirs
from multiroot.coordinator.heir import Heir, Heirdom
from multiroot.errors import BadRequestError
from multiroot.phases import Phases


class FakeDevice:
    """The old root has ended; nothing but PCI is left of it."""

    adopted: list[tuple[int, ...]]

    def __enter__(self) -> FakeDevice:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def claim(self) -> None:
        """Nobody else has it."""

    def inherit(self) -> bool:
        return True

    def adopt_pci(self, *function: int) -> None:
        self.adopted.append(function)


@pytest.fixture
def adopted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    FakeDevice.adopted = []
    monkeypatch.setattr(heirs, "Device", FakeDevice)
    for name in ("foreign_cpus", "foreign_memory", "offline_pieces"):
        monkeypatch.setattr(heirs.adopt, name, lambda *_: ())
    monkeypatch.setattr(heirs.carve, "online_blocks", lambda *_: None)
    return FakeDevice.adopted


def make_heir(tmp_path: Path) -> Heir:
    async def ended(_: float) -> bool:
        return True

    async def let_go() -> None:
        """There is nothing to forget."""

    return Heir(Phases("root 2"), ended, let_go, tmp_path / "told", tmp_path / "no-services")


async def finish(heir: Heir) -> None:
    task: Any = heir._task
    await task
    assert (heir.state, heir.error) == (Heirdom.DONE, "")


async def test_all_functions_unless_told_otherwise(tmp_path: Path, adopted: list[tuple[int, ...]]) -> None:
    heir = make_heir(tmp_path)
    heir.begin()
    await finish(heir)
    assert adopted == [()]


async def test_named_functions_come_in_the_order_of_their_numbers(
    tmp_path: Path, adopted: list[tuple[int, ...]]
) -> None:
    heir = make_heir(tmp_path)
    heir.begin(devices=["0000:01:00.1", "01:00.0", "0000:00:02.0"])
    await finish(heir)
    assert adopted == [(0x10,), (0x100,), (0x101,)]


async def test_a_successor_of_the_agent_takes_the_same_ones(
    tmp_path: Path, adopted: list[tuple[int, ...]]
) -> None:
    first = make_heir(tmp_path)
    first.begin(devices=["01:00.0"])
    assert first._task is not None
    first._task.cancel()
    second = make_heir(tmp_path)
    second.resume()
    await finish(second)
    assert adopted == [(0x100,)]
    assert not (tmp_path / "told").exists()


async def test_what_is_no_address_changes_nothing(tmp_path: Path) -> None:
    heir = make_heir(tmp_path)
    with pytest.raises(BadRequestError, match="not a PCI address"):
        heir.begin(devices=["eth0"])
    assert heir.state is Heirdom.NONE
    assert not (tmp_path / "told").exists()
