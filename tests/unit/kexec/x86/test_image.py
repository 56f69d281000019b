# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.kexec.x86.image import _CRC_DROPPED_IN, parse, release_version

from .bzimage import BzImage

GOOD = BzImage()
GOOD_VERSION = parse(GOOD.build()).version


def test_fields_are_read() -> None:
    data = BzImage(release="6.1.0-56-cloud-amd64", kernel_alignment=1 << 21, init_size=50 << 20).build()
    image = parse(data)
    assert image.release == "6.1.0-56-cloud-amd64"
    assert image.version == (6, 1)
    assert image.setup_size == 5 * 512
    assert image.payload == data[5 * 512 :]
    assert image.setup_header == data[0x1F1:0x270]
    assert (image.kernel_alignment, image.init_size, image.cmdline_size) == (1 << 21, 50 << 20, 2047)
    assert image.loads_above_4g


def test_setup_sects_0_means_4() -> None:
    data = bytearray(replace(GOOD, crc=False, release="6.17.0").build())
    data[0x1F1] = 0
    assert parse(bytes(data)).setup_size == 5 * 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boot_flag": 0}, "no boot flag"),
        ({"magic": b"HdrX"}, "no HdrS"),
        ({"protocol": 0x020B}, "boot protocol 2.11 is too old"),
        ({"xloadflags": 0x3E}, "32-bit kernel"),
        ({"relocatable": 0}, "not relocatable"),
        ({"loadflags": 0}, "below 1 MiB"),
        ({"syssize": 1 << 20}, "truncated"),
        ({"kernel_alignment": 0x30000}, "corrupt.*alignment"),
        ({"kernel_alignment": 0}, "corrupt.*alignment"),
        ({"init_size": 4096}, "corrupt.*to run in"),
        ({"syssize": 0}, "corrupt"),
        ({"cmdline_size": 0}, "corrupt.*command line"),
        ({"version_pointer": 0xFFF0}, "corrupt.*version string"),
        ({"version_pointer": 0}, "corrupt.*version string"),
        ({"release": "linux"}, "corrupt.*version string"),
        ({"header_end": 0x230}, "corrupt.*header ends"),
        ({"crc": False}, "corrupt.*CRC"),
    ],
)
def test_each_defect_has_its_message(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        parse(replace(GOOD, **change).build())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"\x7fELF" + bytes(2000), "ELF"),
        (b"\x1f\x8b\x08" + bytes(2000), "gzip"),
        (b"070701" + bytes(2000), "initrd"),
        (bytes(4096), "not an x86 kernel"),
        (b"# a script\n" * 200, "not an x86 kernel"),
    ],
)
def test_other_files(data: bytes, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        parse(data)


@given(st.integers(0, len(GOOD.build()) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(BadRequestError):
        parse(GOOD.build()[:length])


@given(st.integers(0, len(GOOD.build()) * 8 - 1))
@example(8 * GOOD.build().index(GOOD.release.encode()))
def test_a_flipped_bit_is_noticed_where_there_is_a_checksum(bit: int) -> None:
    data = bytearray(GOOD.build())
    data[bit // 8] ^= 1 << bit % 8
    try:
        image = parse(bytes(data))
    except BadRequestError:
        return
    # That bit makes it claim a release whose images carry none.
    assert image.version >= _CRC_DROPPED_IN > GOOD_VERSION


@given(st.binary(max_size=3000))
def test_rubbish_behind_a_good_start_never_crashes(tail: bytes) -> None:
    start = GOOD.build()[:0x210]
    with pytest.raises(BadRequestError):
        parse(start + tail)


def signed(release: str) -> bytes:
    """As sbsign does it: fill in the PE checksum, append a certificate table that holds the digest."""
    data = bytearray(replace(GOOD, release=release, signed_as_pe=True).build())
    optional_header = 0x40 + 24
    checksum = slice(optional_header + 64, optional_header + 68)
    directory = slice(optional_header + 144, optional_header + 152)
    digest = hashlib.sha256(
        data[: checksum.start] + data[checksum.stop : directory.start] + data[directory.stop :]
    )
    data[checksum] = b"\x12\x34\x56\x00"
    data[directory] = struct.pack("<II", len(data), 64)
    return bytes(data + b"certificate".ljust(32) + digest.digest())


@pytest.mark.parametrize("release", ["6.12.3", "7.3.4"])
def test_signed_images_are_checked(release: str) -> None:
    data = bytearray(signed(release))
    assert parse(bytes(data)).release == release
    data[5000] ^= 1
    with pytest.raises(BadRequestError, match="corrupt"):
        parse(bytes(data))


def test_new_kernels_without_crc_or_signature_are_taken() -> None:
    assert parse(replace(GOOD, release="6.17.2", crc=False).build()).version == (6, 17)


def test_release_version() -> None:
    assert release_version("7.3.4+deb13-cloud-amd64") == (7, 3)
    with pytest.raises(BadRequestError):
        release_version("next-20261124")
