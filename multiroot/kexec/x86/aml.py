# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI Machine Language, as much of it as our DSDT takes. Section numbers are of the ACPI specification 6.5.

Every function returns the encoded bytes of one term, so that a table reads like the ASL it stands for:
`scope("\\\\_SB", device("UAR0", name("_HID", eisa_id("PNP0501"))))`.
"""

from __future__ import annotations

import re
import struct

_NAME_OP = b"\x08"
_BYTE_PREFIX, _WORD_PREFIX, _DWORD_PREFIX, _STRING_PREFIX, _QWORD_PREFIX = (
    b"\x0a",
    b"\x0b",
    b"\x0c",
    b"\x0d",
    b"\x0e",
)
_SCOPE_OP = b"\x10"
_BUFFER_OP = b"\x11"
_METHOD_OP = b"\x14"
_REGION_OP, _FIELD_OP = b"\x5b\x80", b"\x5b\x81"
_SYSTEM_MEMORY = b"\x00"
_WORD_ACCESS = b"\x02"  # and no lock, preserve
_EQUAL_OP, _IF_OP, _RETURN_OP = b"\x93", b"\xa0", b"\xa4"
_DUAL_NAME, _MULTI_NAME = b"\x2e", b"\x2f"
_DEVICE_OP = b"\x5b\x82"
_IO_PORT_TAG = 0x47
_END_TAG = 0x79


def name_string(path: str) -> bytes:
    """A name or path such as "_HID" or "\\\\_SB.UAR0" (20.2.2)."""
    root, rest = (b"\\", path[1:]) if path.startswith("\\") else (b"", path)
    segments = [_name_segment(segment) for segment in rest.split(".")]
    prefix = {1: b"", 2: _DUAL_NAME}.get(len(segments), _MULTI_NAME + bytes([len(segments)]))
    return root + prefix + b"".join(segments)


def _name_segment(segment: str) -> bytes:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,3}", segment):
        raise ValueError(f"not an ACPI name: {segment!r}")
    return segment.ljust(4, "_").encode()


def integer(value: int) -> bytes:
    """The shortest constant for 0 <= value < 2**64 (20.2.3)."""
    if value in (0, 1):
        return bytes([value])
    for limit, prefix, code in (
        (1 << 8, _BYTE_PREFIX, "<B"),
        (1 << 16, _WORD_PREFIX, "<H"),
        (1 << 32, _DWORD_PREFIX, "<I"),
        (1 << 64, _QWORD_PREFIX, "<Q"),
    ):
        if 0 <= value < limit:
            return prefix + struct.pack(code, value)
    raise ValueError(f"not a 64-bit integer: {value}")


def string(text: str) -> bytes:
    """A string constant (20.2.3); ASCII without NUL."""
    if "\0" in text:
        raise ValueError("an AML string can not hold NUL")
    return _STRING_PREFIX + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """An EISA id such as "PNP0501" as the integer that stands for it (19.3.4)."""
    match = re.fullmatch(r"([A-Z]{3})([0-9A-F]{4})", text)
    if not match:
        raise ValueError(f"not an EISA id: {text!r}")
    a, b, c = (ord(letter) - 0x40 for letter in match[1])
    number = (a << 26 | b << 21 | c << 16) | int(match[2], 16)
    return _DWORD_PREFIX + struct.pack(">I", number)


def buffer(data: bytes) -> bytes:
    """A buffer with these bytes (20.2.5.4)."""
    return _BUFFER_OP + _package(integer(len(data)) + data)


def name(path: str, value: bytes) -> bytes:
    """Name (path, value) (20.2.5.1)."""
    return _NAME_OP + name_string(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) { terms } (20.2.5.1)."""
    return _SCOPE_OP + _package(name_string(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) { terms } (20.2.5.2)."""
    return _DEVICE_OP + _package(name_string(path) + b"".join(terms))


def memory_word(region: str, field: str, address: int) -> bytes:
    """OperationRegion (region, SystemMemory, address, 2), and `field`, the 16-bit word there (20.2.5.2)."""
    where = _REGION_OP + name_string(region) + _SYSTEM_MEMORY + integer(address) + integer(2)
    width = bytes([16])  # in bits, as a package length of one byte
    return where + _FIELD_OP + _package(name_string(region) + _WORD_ACCESS + name_string(field) + width)


def method(path: str, *terms: bytes) -> bytes:
    """Method (path, 0, NotSerialized) { terms } (20.2.5.2)."""
    return _METHOD_OP + _package(name_string(path) + b"\x00" + b"".join(terms))


def if_equal(left: bytes, right: bytes, *terms: bytes) -> bytes:
    """If (left == right) { terms } (20.2.5.3)."""
    return _IF_OP + _package(_EQUAL_OP + left + right + b"".join(terms))


def give(value: bytes) -> bytes:
    """Return (value) (20.2.5.3)."""
    return _RETURN_OP + value


def resource_template(*descriptors: bytes) -> bytes:
    """ResourceTemplate () { descriptors }: a buffer that ends with an end tag (6.4.2.9).

    The tag's checksum is 0, which means that there is none; the table has one over everything.
    """
    return buffer(b"".join(descriptors) + bytes([_END_TAG, 0]))


def io_ports(first: int, count: int) -> bytes:
    """IO (Decode16, first, first, 1, count): a fixed range of I/O ports (6.4.2.5)."""
    return struct.pack("<BBHHBB", _IO_PORT_TAG, 1, first, first, 1, count)


def _package(payload: bytes) -> bytes:
    """`payload` behind its package length, which counts itself too (20.2.4)."""
    if len(payload) + 1 < 1 << 6:
        return bytes([len(payload) + 1]) + payload
    for extra in (1, 2, 3):
        length = len(payload) + 1 + extra
        if length < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | length & 0xF]) + (length >> 4).to_bytes(extra, "little") + payload
    raise ValueError(f"AML package too long: {len(payload)} bytes")
