# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of VMs that are files on a disk of the machine: the root that has that serves them to all roots."""
