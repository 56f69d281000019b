# SPDX-License-Identifier: GPL-2.0-or-later
"""Where an agent may tell metrics: nobody has to bring a token there."""

from __future__ import annotations

import ipaddress

from multiroot.errors import BadRequestError
from multiroot.net.addresses import root_address


def parse(text: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9100"; raises BadRequestError for what is none, or is open to guests or the
    world: it has to be on the loopback or on the control network.
    """
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError as error:
        raise BadRequestError(f"not an address: {text!r}", "say --metrics 127.0.0.1:9100") from error
    control = ipaddress.ip_network(f"{root_address(1)}/24", strict=False)
    if not 1 <= number <= 65535 or not (address.is_loopback or address in control):
        raise BadRequestError(
            f"metrics are told on the loopback or the control network ({control}) only, not on {text}",
            "say --metrics 127.0.0.1:9100",
        )
    return str(address), number
