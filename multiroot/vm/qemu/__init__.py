# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU as the VMM: its command line, its monitor protocol, its migration."""
