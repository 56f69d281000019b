# SPDX-License-Identifier: GPL-2.0-or-later
"""The arena: persistent memory that all roots map, holding guest RAM and who owns it."""
