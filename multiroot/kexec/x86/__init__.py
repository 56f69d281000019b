# SPDX-License-Identifier: GPL-2.0-or-later
"""How a kernel for x86 is entered: bzImage, boot_params, ACPI tables, page tables, layout.

Pure: bytes in, bytes out.
"""
