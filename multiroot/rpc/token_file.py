# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a root keeps the lab's token, for those who do not speak gRPC and need not import it."""

from pathlib import Path

TOKEN_FILE = Path("/run/multiroot/token")
