# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with samples: keeping them, summarising them, showing them."""
