# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans carried out: memory and CPUs taken from this root, a kernel loaded and started on them, and back."""
