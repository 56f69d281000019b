# SPDX-License-Identifier: GPL-2.0-or-later
"""Inventory + request -> plan, or an error that names the conflict. Pure, but for `collect`."""
