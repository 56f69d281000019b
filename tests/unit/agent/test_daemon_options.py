# SPDX-License-Identifier: GPL-2.0-or-later
"""What multirootd is told on its command line."""

from __future__ import annotations

import pytest

from multiroot.agent import daemon


def test_the_gateway_is_an_ipv4_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.parse(["--gateway", "10.77.3.2"]).gateway == "10.77.3.2"
    assert daemon.parse([]).gateway == ""
    with pytest.raises(SystemExit) as ended:
        daemon.parse(["--gateway", "10.77.3.2; reboot"])
    assert ended.value.code == 2
    assert "--gateway" in capsys.readouterr().err
