# SPDX-License-Identifier: GPL-2.0-or-later
"""The update as an explicit state machine: every step journaled before and after, each with an undo."""
