# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes bzImages that have every header field but no kernel in them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass
class BzImage:
    """Fields as Documentation/arch/x86/boot.rst names them; `build` encodes them, right or wrong."""

    release: str = "6.12.1-test"
    protocol: int = 0x020F
    setup_sects: int = 4
    payload: bytes = field(default=b"\x90" * 8192)
    syssize: int | None = None  # in paragraphs; None: that of the payload
    boot_flag: int = 0xAA55
    magic: bytes = b"HdrS"
    header_end: int = 0x270
    loadflags: int = 1
    relocatable: int = 1
    xloadflags: int = 0x3F
    kernel_alignment: int = 2 * MIB
    pref_address: int = 16 * MIB
    init_size: int = 32 * MIB
    cmdline_size: int = 2047
    version_pointer: int = 0x400 - 0x200
    signed_as_pe: bool = False
    crc: bool = True

    def build(self) -> bytes:
        setup = bytearray((self.setup_sects + 1) * 512)
        struct.pack_into("<B", setup, 0x1F1, self.setup_sects)
        payload = self.payload.ljust((len(self.payload) + 15) // 16 * 16 + 16, b"\0")
        syssize = len(payload) // 16 if self.syssize is None else self.syssize
        struct.pack_into("<I", setup, 0x1F4, syssize)
        struct.pack_into("<H", setup, 0x1FE, self.boot_flag)
        setup[0x200:0x202] = bytes([0xEB, self.header_end - 0x202])
        setup[0x202:0x206] = self.magic
        struct.pack_into("<H", setup, 0x206, self.protocol)
        struct.pack_into("<H", setup, 0x20E, self.version_pointer)
        setup[0x211] = self.loadflags
        struct.pack_into("<I", setup, 0x230, self.kernel_alignment)
        setup[0x234] = self.relocatable
        struct.pack_into("<HI", setup, 0x236, self.xloadflags, self.cmdline_size)
        struct.pack_into("<II", setup, 0x248, 0, len(self.payload))
        struct.pack_into("<QI", setup, 0x258, self.pref_address, self.init_size)
        version = f"{self.release} (builder@host) #1".encode() + b"\0"
        setup[0x400 : 0x400 + len(version)] = version
        if self.signed_as_pe:
            setup[0:2] = b"MZ"
            struct.pack_into("<I", setup, 0x3C, 0x40)
            setup[0x40:0x44] = b"PE\0\0"
        body = bytearray(setup + payload)
        if self.crc:
            struct.pack_into("<I", body, len(body) - 4, zlib.crc32(body[:-4]) ^ 0xFFFFFFFF)
        return bytes(body)
