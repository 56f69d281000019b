# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel file + initrd + root description -> segments and an entry point. Pure: bytes in, bytes out.

`boot` has the data, `target` what others may ask. There is a folder for each architecture.
"""
