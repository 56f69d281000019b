# SPDX-License-Identifier: GPL-2.0-or-later
"""Two networks that have nothing to do with each other: the roots' own, and the guests'."""
