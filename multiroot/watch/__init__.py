# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine looks like right now, as a document that changes: told by agents, shown by others."""
