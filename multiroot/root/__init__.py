# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root knows of itself and of the roots beside it: identity, marks, control pages, heartbeats."""
