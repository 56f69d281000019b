# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs of one root: what they are, the VMMs that run them, their consoles."""
