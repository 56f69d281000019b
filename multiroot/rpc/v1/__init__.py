# SPDX-License-Identifier: GPL-2.0-or-later
"""Generated from proto/multiroot/v1 by `python -m multiroot.rpc.generate`; do not edit."""
