# SPDX-License-Identifier: GPL-2.0-or-later
"""The console script. What it needs itself is there at once, so that Ctrl-C is one line and an exit code also
while Python still imports the rest.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as shells have it


def main() -> None:
    """The command; `program.main` says how it ends."""
    try:
        from multiroot.cli import program

        program.main()
    except KeyboardInterrupt:
        # Before the program could take it, or while it was telling of another one.
        print("multiroot: interrupted", file=sys.stderr)  # noqa: T201 - what we print with may not be there
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
