# SPDX-License-Identifier: GPL-2.0-or-later
"""The audience of `bench watch`: there when it says so, heard afterwards, and gone in the end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from multiroot.bench import watch
from multiroot.bench.results.samples import Sample
from multiroot.bench.watch import Crowd, Watched
from multiroot.errors import MultirootError

SERVER = "print('http://127.0.0.1:1/#token=x', flush=True)\nimport time\ntime.sleep(600)"
READERS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
print('{"least_events": %d}')
"""


class Programs(Crowd):
    """Programs that say what a page's server and its readers say."""

    def __init__(self, folder: Path, readers: str, server: str = SERVER) -> None:
        super().__init__("lab", 50, 2, folder / "log")
        self.said = {"multiroot.cli.main": server, "multiroot.page.audience": readers}
        self.started: list[tuple[subprocess.Popen[bytes], Sequence[str]]] = []

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", self.said[words[0]]]
        started = subprocess.Popen(program, stdout=subprocess.PIPE)
        self.started.append((started, words))
        return started

    def check_ended(self) -> None:
        for process, _ in self.started:
            assert process.poll() is not None


class Ours:
    """A handoff."""

    def prepare(self) -> None:
        """Nothing is needed."""

    def sample(self) -> list[Sample]:
        return [Sample("browsers look", 0, {"blackout_ns": 5.0})]

    def close(self) -> None:
        """Nothing is left."""


def test_a_sample_says_what_the_audience_has_seen(tmp_path: Path) -> None:
    crowd = Programs(tmp_path, READERS % 7)
    (sample,) = Watched(Ours(), crowd).sample()  # type: ignore[arg-type]
    assert sample.values == {"blackout_ns": 5.0, "least_events": 7.0}
    assert crowd.started[1][1] == [
        "multiroot.page.audience", "http://127.0.0.1:1/", "--readers", "50", "--tabs", "2",
    ]  # fmt: skip
    crowd.check_ended()


@pytest.mark.parametrize(
    ("readers", "server", "says"),
    [
        (READERS % 0, SERVER, "saw nothing"),
        ("raise SystemExit(1)", SERVER, "the audience did not start"),
        (READERS % 7, "raise SystemExit(1)", "the page's server did not start"),
    ],
)
def test_an_audience_that_is_not_there_is_no_sample(
    tmp_path: Path, readers: str, server: str, says: str
) -> None:
    crowd = Programs(tmp_path, readers, server)
    with pytest.raises(MultirootError, match=says), crowd.looking():
        pass
    crowd.check_ended()


def test_what_fails_meanwhile_is_what_is_told(tmp_path: Path) -> None:
    crowd = Programs(tmp_path, READERS % 7)
    with pytest.raises(MultirootError, match="the handoff"), crowd.looking():
        raise MultirootError("the handoff failed")
    crowd.check_ended()


def test_the_vm_is_one_that_visitors_find() -> None:
    made = watch.definition(1 << 27)
    assert "ticker.board=80" in made.append
    assert "ticker.echo=7" in made.append
    assert made.cards[0].address
