# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request may hold at all, looked at before any service sees it.

A service still says what it can't do. Here it is only seen to that a text is one, that nothing is longer than
anybody needs, and that a number is one of its kind. A field without a rule below has the limits of its type.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from multiroot.errors import BadRequestError

# Bytes of a message. The largest request has an update's phases, the largest answer a guest's ticks.
REQUEST_MOST = 1 << 20
ANSWER_MOST = 64 << 20

TEXT_MOST = 256  # characters
PATH_MOST = 4096
CPU_MOST = 16384  # a CPU with each of its features by name
USER_DATA_MOST = 65536
BYTES_MOST = 1 << 16
LIST_MOST = 1024
PHASES_MOST = 8192

VM_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
ROOT_NAME = re.compile(r"old|new|[1-9][0-9]{0,2}")

_ROOTS = 254
_CPUS = 4096
_DAY_S = 86400
# As in multiroot/handoff/terms.py.
_DOWNTIME_MS = 30_000
_GROUP = 8
_PREPARING = 32
_MEMORY = 1 << 52  # physical addresses have 52 bits at most
_TIME_NS = 1 << 62

Rule = Callable[[Any], bool]


def _matches(pattern: re.Pattern[str]) -> Rule:
    return lambda text: bool(pattern.fullmatch(text))


def _text(most: int) -> Rule:
    return lambda text: len(text) <= most and text.replace("\t", " ").isprintable()


def is_text(text: str) -> bool:
    """Of lines, as a file has them."""
    return all(letter.isprintable() or letter in "\n\r\t" for letter in text)


def _up_to(most: int) -> Rule:
    return lambda number: 0 <= number <= most


_IS_VM_NAME = _matches(VM_NAME)

# By message and field.
_RULES: dict[str, Rule] = {
    "VmDefinition.name": _IS_VM_NAME,
    "VmDefinition.ram_bytes": _up_to(_MEMORY),
    "VmDefinition.cpus": _up_to(_CPUS),
    "VmDefinition.cpu": _text(CPU_MOST),
    "VmDefinition.append": _text(PATH_MOST),
    "VmDefinition.kernel": _text(PATH_MOST),
    "VmDefinition.initrd": _text(PATH_MOST),
    "FilePiece.size": _up_to(_MEMORY),
    "Station.mac": _matches(MAC),
    "Station.address": _matches(IPV4),
    "GetVmRequest.name": _IS_VM_NAME,
    "VmDefinition.user_data": lambda text: len(text) <= USER_DATA_MOST and is_text(text),
    **{
        f"{verb}VmRequest.name": _IS_VM_NAME
        for verb in ("Stop", "Start", "Reboot", "Pause", "Unpause", "Remove")
    },
    "StopVmRequest.timeout_s": _up_to(_DAY_S),
    "RebootVmRequest.timeout_s": _up_to(_DAY_S),
    "ResetVmRequest.name": _IS_VM_NAME,
    "ForgetVmRequest.name": _IS_VM_NAME,
    "ConsoleRequest.name": _IS_VM_NAME,
    "GetTicksRequest.name": _IS_VM_NAME,
    "HandoffRequest.names": _IS_VM_NAME,
    "PrepareHandoffRequest.names": _IS_VM_NAME,
    "PrepareHandoffRequest.to": _matches(ROOT_NAME),
    "PrepareHandoffRequest.preparing": _up_to(_PREPARING),
    "CancelHandoffRequest.name": lambda name: not name or _IS_VM_NAME(name),
    "HandoffTerms.downtime_limit_ms": _up_to(_DOWNTIME_MS),
    "ResumeRequest.downtime_limit_ms": _up_to(_DOWNTIME_MS),
    "HandoffTerms.group": _up_to(_GROUP),
    "HandoffTerms.preparing": _up_to(_PREPARING),
    "HandoffTerms.first": _IS_VM_NAME,
    "HandoffRequest.to": _matches(ROOT_NAME),
    "TransferRequest.name": _IS_VM_NAME,
    "AbortRequest.name": _IS_VM_NAME,
    "PrepareRequest.giver": _up_to(_ROOTS),
    "PrepareRequest.cpu": _text(CPU_MOST),
    "ExpectRequest.cpu": _text(CPU_MOST),
    "ExpectRequest.giver": _up_to(_ROOTS),
    "NestedPages.size": _up_to(_MEMORY),
    "NestedPages.count": _up_to(_MEMORY),
    "Extent.offset": _up_to(_MEMORY),
    "Extent.size": _up_to(_MEMORY),
    "LaunchRequest.kernel": _text(PATH_MOST),
    "LaunchRequest.initrd": _text(PATH_MOST),
    "LaunchRequest.cpus": _text(PATH_MOST),
    "LaunchRequest.append": _text(PATH_MOST),
    "LaunchRequest.carve_size": _up_to(_MEMORY),
    "LaunchRequest.carve_base": _up_to(_MEMORY),
    "LaunchRequest.join_timeout_s": _up_to(_DAY_S),
    "DescribeMemoryRequest.root": lambda name: not name or bool(ROOT_NAME.fullmatch(name)),
    "ReadMemoryRequest.root": _up_to(_ROOTS),
    "MemoryRange.start": _up_to(_MEMORY),
    "MemoryRange.size": _up_to(_MEMORY),
    "OpenDiskRequest.path": _text(PATH_MOST),
    "SetClockRequest.wall_offset_ns": _up_to(_TIME_NS),
}
_LISTS = {"TakeOverRequest.phases": PHASES_MOST}
_BY_TYPE: dict[int, Rule] = {
    FieldDescriptor.TYPE_STRING: _text(TEXT_MOST),
    FieldDescriptor.TYPE_BYTES: lambda data: len(data) <= BYTES_MOST,
    FieldDescriptor.TYPE_DOUBLE: math.isfinite,
    FieldDescriptor.TYPE_FLOAT: math.isfinite,
}


def check(message: Message) -> None:
    """Raises BadRequestError, which names the field, for a request that can't be meant."""
    for field, value in message.ListFields():
        name = f"{message.DESCRIPTOR.name}.{field.name}"
        if not field.is_repeated:
            _check_value(name, field, value)
            continue
        if len(value) > _LISTS.get(name, LIST_MOST):
            raise BadRequestError(f"{name} has {len(value)} entries, that is too many")
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            keys, values = field.message_type.fields
            _check_all(name, keys, value)
            _check_all(name, values, value.values())
        else:
            _check_all(name, field, value)


async def checked(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """The requests of a stream; raises BadRequestError at the first that can't be meant."""
    async for request in requests:
        check(request)
        yield request


def _check_all(name: str, field: FieldDescriptor, values: Iterable[Any]) -> None:
    for value in values:
        _check_value(name, field, value)


def _check_value(name: str, field: FieldDescriptor, value: Any) -> None:
    if isinstance(value, Message):
        check(value)
        return
    rule = _RULES.get(name) or _BY_TYPE.get(field.type)
    if rule is not None and not rule(value):
        shown = repr(value)
        raise BadRequestError(f"{name} can't be {shown if len(shown) <= 80 else shown[:80] + '...'}")
