# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot doctor` in a real root."""

from __future__ import annotations

import json
from typing import Any

from multiroot.lab.lab import Lab


def examined(lab: Lab, code: int) -> dict[str, Any]:
    done = lab.run(["multiroot", "doctor", "--json"])
    assert done.returncode == code, done.stdout + done.stderr
    data = json.loads(done.stdout)
    assert data["healthy"] is (code == 0)
    return {check["id"]: check for check in data["checks"]}


def test_a_lab_root_is_healthy_and_what_is_taken_away_is_found(lab: Lab) -> None:
    """Proves that a root of the lab passes every check, by its own files, module and agent, and that a
    defect is found, changes the exit code and nothing else.
    """
    sound = examined(lab, 0)
    assert {check["status"] for name, check in sound.items() if name != "tsc"} == {"ok"}
    assert lab.run(["mv", "/dev/kvm", "/dev/kvm-away"]).returncode == 0
    broken = examined(lab, 1)
    assert lab.run(["mv", "/dev/kvm-away", "/dev/kvm"]).returncode == 0
    assert [name for name in sound if broken[name]["status"] != sound[name]["status"]] == ["kvm"]
    assert examined(lab, 0) == sound
