# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs of one root: what they are, their QEMU processes, their consoles."""
