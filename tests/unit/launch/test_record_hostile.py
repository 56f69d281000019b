# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is in the file between `kexec load` and `kexec start` is a record or refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anything import json_with, made_or_refused, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan.strategies import machine

from multiroot.errors import BadRequestError, MultirootError
from multiroot.launch import record
from multiroot.launch.carve import Taken
from multiroot.launch.load import Entry
from multiroot.launch.record import Loaded
from multiroot.plan.planner import Plan, plan
from multiroot.plan.request import Request

PLAN = plan(machine(), Request())
GOOD = json.loads(
    json.dumps(Loaded("boot", 2, "6.12", "quiet", 1, PLAN, Taken((2,), (9,)), Entry(1, 2, 3, 4, 5)).to_dict())
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    (spoiled(GOOD) | json_with(*GOOD)).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)
)
def test_any_record_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "loaded.json"
    path.write_bytes(data)
    found = made_or_refused(lambda: record.find(path, "boot"))
    if isinstance(found, MultirootError):
        assert found.message.startswith(f"{path} is damaged: ")
    else:
        assert found is None or (isinstance(found.plan, Plan) and found.to_dict())


@pytest.mark.parametrize(
    "data", [GOOD | {"root": float("inf")}, GOOD | {"taken": 7}, GOOD | {"entry": []}, [], "loaded"]
)
def test_what_is_no_record_is_named_with_its_file(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "loaded.json"
    path.write_text(json.dumps(data))
    with pytest.raises(MultirootError, match=f"{path} is damaged: .*`rm {path}`"):
        record.find(path, "boot")


@settings(max_examples=100)
@given(spoiled(GOOD["plan"]) | json_with(*GOOD["plan"]))
def test_any_plan_is_read_or_refused(data: Any) -> None:
    with suppress(BadRequestError):
        made = Plan.from_json(json.dumps(data))
        assert made.to_json()
