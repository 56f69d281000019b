# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that a VM owns and takes along to another root while they are at work; docs/device-handoff.md."""
