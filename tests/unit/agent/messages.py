# SPDX-License-Identifier: GPL-2.0-or-later
"""Strategies for protocol messages: anything that the wire can carry, often near what makes sense."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

WORDS = (
    "vm0", "vm1", "new", "old", "2", "tiny", "q35", "microvm", "retire", "handover", "dance", "../x", "a\nb",
    "\0", "\x1b[2J", "010", "0-3", "1-", "0000:00:02.0", "ff:ff.7", "10.77.1.1/16", "52:54:00:00:00:01",
    "6.12", "fake", "/dev/null", "/", "q35,accel=tcg", "noapic", '"', "x" * 5000, "\u00e9",
    "/nonexistent/vmlinuz", "ready", "done", "\x9b1m", "\x1b]0;x\x07", "a\nmultiroot: b", "[red]", "c:a:b\\",
    "\u202e",
)  # fmt: skip
TEXT = st.sampled_from(WORDS) | st.text(max_size=6)


def numbers(low: int, high: int) -> st.SearchStrategy[int]:
    near = [n for n in (-1, 0, 1, 2, 32 << 20, 2 << 20, 1 << 48, low, high) if low <= n <= high]
    return st.sampled_from(near) | st.integers(low, high)


_KINDS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40)
    | st.sampled_from((b"{}", b"[1]", b'{"registers": 1}')),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_UINT32: numbers(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT32: numbers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT64: numbers(0, (1 << 64) - 1),
    FieldDescriptor.TYPE_INT64: numbers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    # The wire carries values that have no name, too.
    FieldDescriptor.TYPE_ENUM: numbers(-(1 << 31), (1 << 31) - 1),
}


@st.composite
def like(draw: st.DrawFn, descriptor: Descriptor, good: Message | None = None) -> Message:
    """A message of this kind. Of the fields of `good`, if there is one, most are kept."""
    message = GetMessageClass(descriptor)()
    if good is not None:
        message.CopyFrom(good)
    for field in descriptor.fields:
        if draw(st.integers(0, 3 if good is not None else 1)) == 0:
            message.ClearField(field.name)
            _fill(draw, message, field)
    return message


def _fill(draw: st.DrawFn, message: Message, field: FieldDescriptor) -> None:
    content: Any = getattr(message, field.name)
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        content.update(draw(st.dictionaries(TEXT, TEXT, max_size=3)))
    elif inner is not None and field.is_repeated:
        content.extend(draw(st.lists(like(inner), max_size=7)))
    elif inner is not None:
        content.CopyFrom(draw(like(inner)))
    elif field.is_repeated:
        content.extend(draw(st.lists(_KINDS[field.type], max_size=3)))
    else:
        setattr(message, field.name, draw(_KINDS[field.type]))
