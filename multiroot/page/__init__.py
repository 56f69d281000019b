# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a lab: a server on the workstation's loopback, and what browsers get from it."""
