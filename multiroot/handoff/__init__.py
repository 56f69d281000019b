# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing one running VM from this root (the giver) to another (the taker); docs/handoff.md."""
