# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the C extensions (atomics on shared memory, the kernel border); all else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=[
        "csrc/arena/build_atomics.py:ffibuilder",
        "csrc/kmod/uapi/build_uapi.py:ffibuilder",
    ],
    # One wheel serves the workstation's Python and the lab image's newer one.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
