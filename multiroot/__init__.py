# SPDX-License-Identifier: GPL-2.0-or-later
"""Two Linux kernels on one machine, and running VMs handed from one to the other."""

__version__ = "0.1.0"
