# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks whether a root can do its work. No check changes anything; each says how to mend what it finds."""
