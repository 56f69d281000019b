# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: thin layers that parse, call and render."""
