# SPDX-License-Identifier: GPL-2.0-or-later
"""A plugin of the pytest inside a workstation: says on a serial port how each test ended, in JSON lines.

`tests` is the list of what will run. `started` names a test. `test` and `outcome` tell its end, `text` what
it has recorded, or what there is to see of one that failed. `ended` comes last, with pytest's exit code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiroot.lab import state
from multiroot.lab.boot import QEMU_LOG
from multiroot.lab.recorder import EVENTS_LOG, console_log

PORT = Path("/dev/ttyS1")
_LOG_TAIL = 8000  # bytes of each log of a lab machine
_LOGS = (console_log("old"), console_log("new"), EVENTS_LOG, QEMU_LOG)


class Verdicts:
    """Gathers the reports of a test's phases, and says its end after the last one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reports: list[pytest.TestReport] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._say({"broken": report.nodeid, "text": report.longreprtext})

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._say({"tests": [item.nodeid for item in session.items]})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._reports = []
        self._say({"started": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)
        if report.when != "teardown":
            return
        outcomes = {each.outcome for each in self._reports}
        outcome = next((each for each in ("failed", "skipped") if each in outcomes), "passed")
        text = "\n".join(_seen(self._reports))
        seconds = round(sum(each.duration for each in self._reports), 1)
        self._say({"test": report.nodeid, "outcome": outcome, "seconds": seconds, "text": text})

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._say({"ended": int(exitstatus)})

    def _say(self, message: dict[str, Any]) -> None:
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(self._port, data) :]


def _seen(reports: list[pytest.TestReport]) -> Iterator[str]:
    """What a test has recorded; of one that did not pass also pytest's report and the lab machines' last
    words.
    """
    yield from (f"{name}: {value}" for name, value in reports[-1].user_properties)
    for report in reports:
        if report.outcome != "passed":
            yield report.longreprtext
            yield from (f"--- {name}\n{text}" for name, text in report.sections)
    if any(report.failed for report in reports):
        for name in state.names():
            for log in _LOGS:
                path = state.folder(name) / log
                if path.exists():
                    tail = path.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
                    yield f"--- {name}: {log}\n{tail}"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Verdicts(os.open(PORT, os.O_WRONLY | os.O_NOCTTY)))
