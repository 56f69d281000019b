# SPDX-License-Identifier: GPL-2.0-or-later
"""The network that roots and guests share: one bridge per root, joined by the link devices."""
