# SPDX-License-Identifier: GPL-2.0-or-later
"""The two names that commands have for roots: the one that was there first is "old", the other "new"."""

OTHER = {"old": "new", "new": "old"}  # who gives when a root takes
