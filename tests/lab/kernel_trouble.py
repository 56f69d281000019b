# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel of a root complains of, for tests of our modules. Kernels that look for bugs in themselves
say more (`--kernel`).
"""

from __future__ import annotations

from collections.abc import Iterable

from multiroot.lab.lab import Lab
from multiroot.verdict.allow import Allowed, apply
from multiroot.verdict.findings import Source, find
from multiroot.workbench import look


def trouble(lab: Lab, root: str = "old", allow: Iterable[Allowed] = ()) -> list[str]:
    """The first line of each complaint that is not allowed, and of what kmemleak finds, where there is."""
    log = lab.run(["dmesg"], root=root).stdout
    found = [*find(log.splitlines(), root), *look.leaks(look.in_root(lab, root), Source(root)).found]
    return [each.headline for each in apply(found, allow) if not each.allowed]
