# SPDX-License-Identifier: GPL-2.0-only
"""Describes the extension `multiroot.device._uapi` to setuptools (cffi, API mode, stable ABI).

The declarations are those of the modules' headers themselves; the C compiler fills in ioctl numbers and
checks every offset against the same files.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
HEADERS = ("multiroot.h", "multiroot_iommu.h", "multiroot_pci.h")
# asm-generic/int-ll64.h: 64 bits are a long long, which stdint.h's uint64_t is not.
TYPES = """
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef signed int __s32;
typedef unsigned long long __u64;
"""
SYSTEM_CALL = "int ioctl(int fd, unsigned long request, ...);\n"


def declarations(header: str) -> str:
    """What cffi's parser understands of the header: no comments, no preprocessor, ioctls as constants."""
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    ioctls = re.findall(r"^#define\s+(MULTIROOT_(?:\w+_)?IOC_\w+)\s+_IO", header, flags=re.MULTILINE)
    plain = re.sub(r"^#.*$", "", header, flags=re.MULTILINE)
    return plain + "".join(f"#define {name} ...\n" for name in ioctls)


ffibuilder = FFI()
ffibuilder.cdef(TYPES + SYSTEM_CALL)
for name in HEADERS:
    ffibuilder.cdef(declarations((HERE / name).read_text()))
ffibuilder.set_source(
    "multiroot.device._uapi",
    "#include <sys/ioctl.h>\n" + "".join(f'#include "{name}"\n' for name in HEADERS),
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2", "-Wall", "-Wextra"],
)
