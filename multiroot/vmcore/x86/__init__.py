# SPDX-License-Identifier: GPL-2.0-or-later
"""What is particular to kernels for x86-64: page tables, registers, stacks."""
