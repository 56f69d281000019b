# SPDX-License-Identifier: GPL-2.0-or-later
"""The file that a kernel is given as: an image, or what holds one, or what people take for one.

Pure, but for programs that unpack. Formats: the PE format; UAPI.5 (Unified
Kernel Image); drivers/firmware/efi/libstub/zboot.lds.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.verdict import elf

_PE, _COFF, _PE_SECTION = b"PE\0\0", struct.Struct("<HHIIIHH"), struct.Struct("<8sIIII16x")
_ELF_32 = 1
_SIZE_BEHIND = 4  # bytes: the build puts the unpacked size behind the compressed data
# Programs for what Python cannot unpack, by the first bytes.
_PROGRAMS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}
_UNPACK_S = 60.0

# What people give in place of a kernel: first bytes, what it is, what to give.
_OTHERS = (
    (b"\x1f\x8b", "it is a gzip file", "unpack it, or give the image (vmlinuz) itself"),
    (b"\xfd7zXZ\0", "it is an xz file", "unpack it, or give the image (vmlinuz) itself"),
    (b"\x28\xb5\x2f\xfd", "it is a zstd file", "unpack it, or give the image (vmlinuz) itself"),
    (b"070701", "it is a cpio archive, such as an initrd", "give the kernel (vmlinuz)"),
    (
        b"\xed\xab\xee\xdb",
        "it is an RPM package",
        "unpack it (`rpm2cpio FILE | cpio -id`) and give its folder",
    ),
    (b"!<arch>\n", "it is an archive", "a Debian package is called *.deb"),
    (b"#!", "it is a script", "give the kernel (vmlinuz)"),
)


def image_in(path: Path) -> bytes:
    """The kernel image in a file: the file itself, or the kernel in a Unified Kernel Image. BadRequestError
    if none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequestError(
            f"cannot read kernel {path}: {error.strerror}",
            "name a tree that was built, an image or a package",
        ) from error
    form = arch.current().kernel
    if data.startswith(elf.MAGIC):
        raise BadRequestError(f"{path}: not a {form.name}: {_elf(data)}", _beside(path))
    if data[:2] == b"MZ" and data[4:8] == b"zimg":
        raise BadRequestError(
            f"{path}: not a {form.name}: it is an EFI zboot image, which other architectures have",
            f"give a {form.name} of this one",
        )
    if inside := pe_section(data, ".linux"):
        data = inside
    for magic, what, hint in _OTHERS:
        if data.startswith(magic):
            raise BadRequestError(f"{path}: not a {form.name}: {what}", hint)
    try:
        form.release(data[: form.head])
    except BadRequestError as error:
        raise BadRequestError(f"{path}: {error.message}", error.hint) from error
    return data


def _elf(data: bytes) -> str:
    bits = "a 32-bit ELF file" if data[4:5] == bytes([_ELF_32]) else "an ELF file"
    return f"it is {bits}, such as vmlinux"


def _beside(path: Path) -> str:
    """The image that was made of a vmlinux, to be given in its place."""
    form = arch.current().kernel
    made = path.parent / form.built
    return f"give {made}" if made.is_file() else f"give the {form.name} (vmlinuz), not vmlinux"


def pe_section(data: bytes, name: str) -> bytes:
    """What section `name` of a PE file holds; empty if there is none."""
    if data[:2] != b"MZ" or len(data) < 0x40:
        return b""
    (at,) = struct.unpack_from("<I", data, 0x3C)
    if data[at : at + 4] != _PE or at + 4 + _COFF.size > len(data):
        return b""
    coff = _COFF.unpack_from(data, at + 4)
    first = at + 4 + _COFF.size + coff[5]
    for number in range(coff[1]):
        where = first + number * 40
        if where + 40 > len(data):
            return b""
        title, virtual, _, size, offset = _PE_SECTION.unpack_from(data, where)
        if title.rstrip(b"\0") == name.encode():
            return data[offset : offset + min(size, virtual or size)]
    return b""


def build_id(image: bytes, programs: Mapping[str, list[str]] | None = None) -> str:
    """The GNU build-id of the kernel in an image; "" when the build left none or it cannot be unpacked.

    `programs` are commands for zstd and lz4 where the workstation's are not to be used.
    """
    return elf.build_id(unpacked(arch.current().kernel.payload(image), programs or {}))


def unpacked(data: bytes, programs: Mapping[str, list[str]]) -> bytes:
    """The kernel in an image's payload; empty if nobody here can unpack it."""
    if data.startswith(elf.MAGIC):
        return data
    try:
        if data.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data)
        if data.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            return lzma.LZMADecompressor().decompress(data)
        if data.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(data)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError):
        return b""
    name = _PROGRAMS.get(data[:4], "")
    found = proc.find(name) if name else None
    argv = programs.get(name) or ([found] if found else [])
    try:
        return proc.convert([*argv, "-dc"], data[:-_SIZE_BEHIND], _UNPACK_S) if argv else b""
    except CommandError:
        return b""
