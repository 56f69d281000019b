# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VM is handed over when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.cli import terms as options
from multiroot.errors import BadRequestError
from multiroot.handoff import giver, terms
from multiroot.handoff.terms import Order, Terms, from_proto, to_proto, turns
from multiroot.rpc import border
from multiroot.rpc.v1 import coordinator_pb2

VMS = [("web", 30), ("db", 10), ("mail", 20)]
ANY = st.builds(
    Terms,
    st.integers(1, terms.DOWNTIME_MOST_MS),
    st.integers(1, terms.GROUP_MOST),
    st.integers(1, terms.PREPARING_MOST),
    st.sampled_from(Order),
    st.lists(st.sampled_from([name for name, _ in VMS]), unique=True).map(tuple),
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Terms(), [["web"], ["db"], ["mail"]]),
        (Terms(group=2), [["web", "db"], ["mail"]]),
        (Terms(order=Order.SMALLEST), [["db"], ["mail"], ["web"]]),
        (Terms(order=Order.LARGEST), [["web"], ["mail"], ["db"]]),
        (Terms(order=Order.LARGEST, first=("db",), group=8), [["db", "web", "mail"]]),
    ],
)
def test_the_order_can_be_chosen(wanted: Terms, expected: list[list[str]]) -> None:
    assert turns(VMS, wanted) == expected


@given(ANY)
def test_every_vm_has_one_turn_and_no_group_is_too_large(wanted: Terms) -> None:
    found = turns(VMS, wanted)
    assert sorted(name for group in found for name in group) == sorted(name for name, _ in VMS)
    assert all(1 <= len(group) <= wanted.group for group in found)


def test_who_is_to_be_first_has_to_be_among_them() -> None:
    with pytest.raises(BadRequestError, match="and so not first: nobody"):
        turns(VMS, Terms(first=("web", "nobody")))


@given(ANY)
def test_terms_are_the_same_after_a_message_and_after_the_journal(wanted: Terms) -> None:
    border.check(to_proto(wanted))
    assert from_proto(to_proto(wanted)) == wanted
    assert Terms.from_dict(wanted.to_dict()) == wanted


def test_what_is_left_out_is_as_usual() -> None:
    assert from_proto(coordinator_pb2.HandoffTerms()) == Terms() == Terms.from_dict({})


def test_an_order_that_is_none() -> None:
    with pytest.raises(BadRequestError, match="no order 'best'"):
        from_proto(coordinator_pb2.HandoffTerms(order="best"))


def test_commands_and_agents_have_the_same_limits() -> None:
    for name in ("DOWNTIME_LIMIT_MS", "DOWNTIME_MOST_MS", "GROUP_MOST", "PREPARING", "PREPARING_MOST"):
        assert getattr(options, name) == getattr(terms, name), name
    assert list(options.ORDERS) == list(Order)
    for name, most in (
        ("downtime_limit_ms", terms.DOWNTIME_MOST_MS),
        ("group", terms.GROUP_MOST),
        ("preparing", terms.PREPARING_MOST),
    ):
        border.check(coordinator_pb2.HandoffTerms(**{name: most}))
        with pytest.raises(BadRequestError, match=name):
            border.check(coordinator_pb2.HandoffTerms(**{name: most + 1}))


def test_no_limit_is_allowed_that_a_giver_does_not_keep() -> None:
    assert terms.DOWNTIME_MOST_MS <= giver.TRANSFER_TIMEOUT_S * 1e3
