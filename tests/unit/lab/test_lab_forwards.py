# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiroot.lab.forwards import Forward, parse

SAID = """Hub -1 (net):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[TIME_WAIT]     27       127.0.0.1 45621       10.0.2.15  7700     0     0\r
  TCP[HOST_FORWARD]  14       127.0.0.1 44301       10.0.2.15  7701     0     0\r
Hub -1 (uplink):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   31       127.0.0.1 46167       10.77.1.5  7000     0     0\r
  TCP[HOST_FORWARD]  29       127.0.0.1 46167       10.77.1.5  7000     0     0\r
  TCP[HOST_FORWARD]  30       127.0.0.1  8080       10.77.4.1    80     0     0\r
  UDP[236 sec]       33       127.0.0.1 50000       10.77.3.3    53     0     0\r
"""


def test_only_ways_to_guests_are_meant() -> None:
    assert parse(SAID) == [Forward(8080, "10.77.4.1", 80), Forward(46167, "10.77.1.5", 7000)]
    assert parse(SAID, "net") == [Forward(44301, "10.0.2.15", 7701)]
    assert parse(SAID, "other") == []


@given(text=st.text())
def test_any_text_has_some_or_none(text: str) -> None:
    assert isinstance(parse(text), list)
