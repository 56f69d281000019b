# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest tells of its disk."""

from __future__ import annotations

import pytest

from multiroot.bench.disk import METRICS, parse
from multiroot.errors import CommandError

LARGE = "S 65536 requests=512 write=364520076 read=207665949\n"
SMALL = "S 4096 requests=512 write=211137688 read=205758440\r\n"


def test_times_become_rates() -> None:
    found = parse(f"READY boot=x\n{LARGE}{SMALL}T 1\n")
    assert set(found) == set(METRICS)
    assert found["read_mb_per_s"] == pytest.approx(65536 * 512 / 0.207665949 / 1e6, abs=0.001)
    assert found["small_write_mb_per_s"] == pytest.approx(4096 * 512 / 0.211137688 / 1e6, abs=0.001)


@pytest.mark.parametrize("console", ["", LARGE, LARGE + SMALL.replace("read=205758440", "read=0")])
def test_what_is_not_all_is_an_error(console: str) -> None:
    with pytest.raises(CommandError, match="small_read_mb_per_s"):
        parse(console)
