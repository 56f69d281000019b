# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the benches that run inside roots, each started by its module name."""
