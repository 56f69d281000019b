# SPDX-License-Identifier: GPL-2.0-or-later
"""The board that the lab's guest keeps, compiled for this computer; and how the page finds it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot.lab import forwards, paths, visitors
from multiroot.rpc.v1 import vm_pb2

TICKER = paths.recipes_dir() / "guests/ticker"
MAIN = """
#include <stdlib.h>
#include <unistd.h>
#include "ticker.h"

int main(int count, char **words)
{
	board(atoi(words[count - 1]));
	pause();
}
"""
WIDE, HIGH = 96, 48
WAIT_S = 60.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc is installed")
    folder = tmp_path_factory.mktemp("board")
    (folder / "main.c").write_text(MAIN)
    sources = [folder / "main.c", *(TICKER / name for name in ("board.c", "board_page.c", "echo.c"))]
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", f"-I{TICKER}"]
    subprocess.run([compiler, *flags, "-o", folder / "board", *sources], check=True)
    return folder / "board"


@pytest.fixture
def port(program: Path) -> Iterator[int]:
    """A board of its own, on a port of the loopback; it ends with the test."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    # It forks, as in the guest; the group is what is ended.
    started = subprocess.Popen([program, str(number)], start_new_session=True)
    try:
        until = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number)):
                break
            assert time.monotonic() < until
        yield number
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def ask(port: int, path: str, method: str = "GET") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        text: str = answer.read().decode()
    return text


def cells(port: int) -> tuple[int, list[str]]:
    head, *rows = ask(port, "/cells").splitlines()
    return int(head.split()[0]), rows


def test_the_board_lives(port: int) -> None:
    first, rows = cells(port)
    assert [len(row) for row in rows] == [WIDE] * HIGH
    assert set("".join(rows)) == {"0", "1"}
    until = time.monotonic() + WAIT_S
    while cells(port)[0] < first + 3:
        assert time.monotonic() < until
    assert cells(port)[1] != rows


def test_who_draws_draws_for_all(port: int) -> None:
    ask(port, "/draw/70/30", "POST")
    # A few steps may have been done since; what was drawn lives for hundreds of them.
    assert any("1" in row[64:77] for row in cells(port)[1][24:37])


@pytest.mark.parametrize("path", ["/draw/0/0", "/draw/-5/9", "/draw/95/47", "/draw/999999999/999999999"])
def test_nobody_draws_outside(port: int, path: str) -> None:
    ask(port, path, "POST")
    assert len(cells(port)[1]) == HIGH


@pytest.mark.parametrize("path", ["/x", "/cells/", "/draw/1/1", "/../etc/passwd"])
def test_nothing_else_is_there(port: int, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(port, path)
    assert refused.value.code == 404


def test_who_comes_and_says_nothing_or_too_much_is_in_nobodys_way(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        talker = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with contextlib.suppress(OSError):
            talker.sendall(b"GET /" + b"x" * 10_000)
        assert len(cells(port)[1]) == HIGH


def test_the_page_of_the_board_asks_for_what_there_is(port: int) -> None:
    page = ask(port, "/")
    assert set(re.findall(r"fetch\([`']([a-z]+)", page)) == {"cells", "draw"}
    assert f"*{WIDE}" in page
    assert f"*{HIGH}" in page


@pytest.mark.parametrize(
    ("append", "wanted"),
    [
        ("ticker.board=80", 80),
        ("ticker.echo=7 ticker.board=8080 quiet", 8080),
        ("ticker.boards=80", None),
        ("xticker.board=80", None),
        ("", None),
    ],
)
def test_visitors_find_the_vm_that_keeps_one(
    monkeypatch: pytest.MonkeyPatch, append: str, wanted: int | None
) -> None:
    card = vm_pb2.Card(address="10.77.1.2/16")
    vms = [
        vm_pb2.Vm(definition=vm_pb2.VmDefinition(name="a", append="quiet", cards=[card])),
        vm_pb2.Vm(definition=vm_pb2.VmDefinition(name="b", append=append, cards=[card])),
    ]
    monkeypatch.setattr(visitors, "_vms", lambda lab: iter(vms))
    monkeypatch.setattr(
        forwards, "add", lambda lab, address, guest_port, vm: forwards.Forward(5000, address, guest_port, vm)
    )
    found = visitors.find(None)  # type: ignore[arg-type]
    assert found.boards == ((visitors.Door("b", 5000),) if wanted else ())
