# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a bzImage: the x86 setup header (Documentation/arch/x86/boot.rst) and what it promises.

Every way in which a file is not a kernel we can start has one BadRequestError of its own.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, field

from multiroot.arch.x86 import MAGIC, MAGIC_AT, kernel_release
from multiroot.errors import BadRequestError
from multiroot.units import PAGE

SECTOR = 512
MIN_PROTOCOL = 0x020C  # 2.12: xloadflags, and 64-bit fields for what lies above 4 GiB
LOADED_HIGH = 1 << 0  # loadflags
XLF_KERNEL_64 = 1 << 0  # xloadflags: the 64-bit entry point at +0x200 exists
XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1
ENTRY_64 = 0x200  # 64-bit entry point, from the start of the protected-mode code

HEADER_START = 0x1F1
HEADER_LIMIT = 0x290  # boot_params.edd_mbr_sig_buffer: the copied header must end before it
_HEADER_FLOOR = 0x268  # end of handover_offset, the last field that protocol 2.12 has

# File offsets of header fields.
_SETUP_SECTS = 0x1F1
_SYSSIZE = 0x1F4
_BOOT_FLAG = 0x1FE
_HEADER_END = 0x201
_VERSION = 0x206
_LOADFLAGS = 0x211
_KERNEL_ALIGNMENT = 0x230
_RELOCATABLE = 0x234
_XLOADFLAGS = 0x236
_CMDLINE_SIZE = 0x238
_PAYLOAD_OFFSET = 0x248
_PAYLOAD_LENGTH = 0x24C
_PREF_ADDRESS = 0x258
_INIT_SIZE = 0x260

_OTHER_FORMATS = (
    (b"\x7fELF", "an ELF file", "give the bzImage (vmlinuz), not vmlinux"),
    (b"\x1f\x8b", "a gzip file", "give the bzImage (vmlinuz) itself"),
    (b"070701", "a cpio archive", "it looks like an initrd: were kernel and initrd swapped?"),
)
_CRC_DROPPED_IN = (6, 16)  # from here on the build leaves no CRC at the end of the image


@dataclass(frozen=True)
class KernelImage:
    """A bzImage that passed every check. Sizes in bytes, addresses physical."""

    data: bytes = field(repr=False)
    protocol: int
    setup_size: int
    payload_size: int
    header_end: int
    release: str
    kernel_alignment: int
    pref_address: int
    init_size: int
    cmdline_size: int
    xloadflags: int

    @property
    def setup_header(self) -> bytes:
        """The bytes that go to the same offset (0x1f1) of boot_params."""
        return self.data[HEADER_START : self.header_end]

    @property
    def payload(self) -> bytes:
        """The protected-mode code; execution starts at `ENTRY_64` bytes into it."""
        return self.data[self.setup_size : self.setup_size + self.payload_size]

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number: (6, 12) for release "6.12.117-cloud-amd64"."""
        return release_version(self.release)

    @property
    def loads_above_4g(self) -> bool:
        return bool(self.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G)


def release_version(release: str) -> tuple[int, int]:
    """Major and minor number of a kernel release; BadRequestError when it does not start with them."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if not match:
        raise BadRequestError(f"kernel release {release!r} does not start with a version number")
    return int(match[1]), int(match[2])


def parse(data: bytes) -> KernelImage:
    """Parse and check a bzImage.

    Raises BadRequestError for a file that is no x86 kernel, truncated, corrupt, too old, 32-bit or
    not relocatable.
    """
    _require_kernel(data)
    protocol = _u16(data, _VERSION)
    if protocol < MIN_PROTOCOL:
        raise BadRequestError(
            f"kernel image: boot protocol {protocol >> 8}.{protocol & 0xFF:02} is too old",
            f"{MIN_PROTOCOL >> 8}.{MIN_PROTOCOL & 0xFF} (Linux 3.8) or newer is needed",
        )
    setup_size = ((data[_SETUP_SECTS] or 4) + 1) * SECTOR
    payload_size = _u32(data, _SYSSIZE) * 16
    end = setup_size + payload_size
    if len(data) < end:
        raise BadRequestError(
            f"kernel image: truncated, {len(data)} bytes of the {end} that its header announces",
            "copy the image again",
        )
    xloadflags = _u16(data, _XLOADFLAGS)
    if not xloadflags & XLF_KERNEL_64:
        raise BadRequestError(
            "kernel image: 32-bit kernel, it has no 64-bit entry point", "use a 64-bit (amd64) kernel"
        )
    if not data[_RELOCATABLE]:
        raise BadRequestError(
            "kernel image: not relocatable, it runs at one fixed address only",
            "build it with CONFIG_RELOCATABLE=y",
        )
    image = KernelImage(
        data=data,
        protocol=protocol,
        setup_size=setup_size,
        payload_size=payload_size,
        header_end=MAGIC_AT + data[_HEADER_END],
        release=_release(data, setup_size),
        kernel_alignment=_u32(data, _KERNEL_ALIGNMENT),
        pref_address=_u64(data, _PREF_ADDRESS),
        init_size=_u32(data, _INIT_SIZE),
        cmdline_size=_u32(data, _CMDLINE_SIZE),
        xloadflags=xloadflags,
    )
    _require_consistent(image)
    _require_checksum(image)
    return image


def _require_kernel(data: bytes) -> None:
    for magic, what, hint in _OTHER_FORMATS:
        if data.startswith(magic):
            raise BadRequestError(f"not an x86 kernel image: it is {what}", hint)
    if len(data) >= _BOOT_FLAG + 2 and _u16(data, _BOOT_FLAG) != 0xAA55:
        raise BadRequestError(
            "not an x86 kernel image: no boot flag 0xaa55 at 0x1fe", "give a bzImage (vmlinuz)"
        )
    if len(data) >= MAGIC_AT + 4 and data[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        raise BadRequestError(
            "not an x86 kernel image: no HdrS signature at 0x202", "give a bzImage (vmlinuz)"
        )
    if len(data) < HEADER_LIMIT:
        raise BadRequestError(f"kernel image: truncated, {len(data)} bytes do not even hold a setup header")


def _release(data: bytes, setup_size: int) -> str:
    """The release, which must begin with a version number."""
    try:
        release = kernel_release(data[:setup_size])
    except BadRequestError as error:
        raise _corrupt("its version string is empty or outside of the setup code") from error
    if not re.match(r"\d+\.\d+", release):
        raise _corrupt("its version string is not one")
    return release


def _require_consistent(image: KernelImage) -> None:
    """Fields that contradict each other can only come from damage."""
    alignment, header_end = image.kernel_alignment, image.header_end
    payload_start = image.setup_size + _u32(image.data, _PAYLOAD_OFFSET)
    payload_end = payload_start + _u32(image.data, _PAYLOAD_LENGTH)
    if not image.data[_LOADFLAGS] & LOADED_HIGH:
        raise BadRequestError("kernel image: a zImage that loads below 1 MiB", "give a bzImage")
    if not _HEADER_FLOOR <= header_end <= HEADER_LIMIT:
        raise _corrupt(f"its setup header ends at {header_end:#x}")
    if alignment < PAGE or alignment & (alignment - 1):
        raise _corrupt(f"its kernel alignment is {alignment:#x}")
    if not 0 < image.payload_size <= image.init_size:
        raise _corrupt(f"{image.payload_size} bytes of code, but {image.init_size} to run in")
    if image.cmdline_size == 0:
        raise _corrupt("it takes no command line")
    if payload_end > image.setup_size + image.payload_size:
        raise _corrupt("its compressed kernel ends behind the image")


def _require_checksum(image: KernelImage) -> None:
    """Check the image against whatever it carries: kernels before 6.16 a CRC, signed ones a digest.

    The CRC-32 is the last word of the image (boot.rst, "the image checksum"), so that of the whole
    comes out as 0 before the final inversion. Signing for Secure Boot fills in the PE checksum and
    the certificate table's address afterwards; both count as 0, and are left out of the digest.
    """
    data = image.data
    covered = data[: image.setup_size + image.payload_size]
    holes = _pe_signing_fields(covered)
    if image.version < _CRC_DROPPED_IN:
        zeroed = bytearray(covered)
        for hole in holes:
            zeroed[hole] = bytes(hole.stop - hole.start)
        if zlib.crc32(zeroed) != 0xFFFFFFFF:
            raise _corrupt("its CRC does not match")
    elif holes:
        checksum, certificate_table = holes
        certificates = _u32(data, certificate_table.start)
        digest = hashlib.sha256(data[: checksum.start])
        digest.update(data[checksum.stop : certificate_table.start])
        digest.update(data[certificate_table.stop : certificates or len(data)])
        if certificates and digest.digest() not in data[certificates:]:
            raise _corrupt("its signature is for something else")


def _pe_signing_fields(data: bytes) -> tuple[slice, ...]:
    """Where the PE checksum and the certificate table's directory entry are; empty if not a PE32+ file."""
    if data[:2] != b"MZ":
        return ()
    optional_header = _u32(data, 0x3C) + 24
    if data[optional_header - 24 : optional_header - 20] != b"PE\0\0":
        return ()
    return (
        slice(optional_header + 64, optional_header + 68),
        slice(optional_header + 144, optional_header + 152),
    )


def _corrupt(why: str) -> BadRequestError:
    return BadRequestError(f"kernel image: corrupt, {why}", "copy the image again")


def _u16(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", data, offset)[0])


def _u32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def _u64(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", data, offset)[0])
