# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel image + initrd + root description -> segments and an entry point. Pure: bytes in, bytes out."""
