# SPDX-License-Identifier: GPL-2.0-or-later
"""The arena: persistent memory that all roots map. It holds guest RAM, and records who owns each VM's."""
