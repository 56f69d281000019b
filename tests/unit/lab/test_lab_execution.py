# SPDX-License-Identifier: GPL-2.0-or-later
"""Running commands: our client against the real exec service, compiled for this machine and run on
loopback.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from multiroot import proc
from multiroot.errors import PeerLostError
from multiroot.lab import execution, paths
from multiroot.lab.execution import Channel, DirectChannel, RelayChannel

TOKEN = "0123456789abcdef"

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler here")


@pytest.fixture(scope="module")
def execd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("execd") / "execd"
    source = paths.recipes_dir() / "image/execd.c"
    proc.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source])
    return program


@pytest.fixture(scope="module")
def port(execd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "token").write_text(TOKEN + "\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
    with subprocess.Popen(
        [execd, "listen", str(number), folder / "token", folder / "marks", "127.0.0.1"],
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout
        assert server.stdout.readline().startswith(b"<3>multiroot: mark exec ")
        yield number
        server.kill()


@pytest.fixture(params=["direct", "relay"])
def channel(request: pytest.FixtureRequest, port: int, execd: Path) -> Iterator[Channel]:
    """Straight to the service, and through a relay that the service runs: as to the old and the new root."""
    direct = DirectChannel(port, TOKEN)
    if request.param == "direct":
        way: Channel = direct
    else:
        way = RelayChannel(direct, "127.0.0.1", TOKEN, port=port, relay=str(execd))
    with closing(way):
        yield way


def shell(channel: Channel, script: str) -> execution.Result:
    return execution.run(channel, ["sh", "-c", script], timeout=30)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_both_outputs_and_the_exit_code_come_back(channel: Channel, code: int) -> None:
    assert shell(channel, f"echo out; echo err >&2; exit {code}") == execution.Result(code, "out\n", "err\n")


@pytest.mark.parametrize("number", [1, 9, 15])
def test_a_signal_is_128_and_its_number(channel: Channel, number: int) -> None:
    assert shell(channel, f"kill -{number} $$").returncode == 128 + number


def test_a_program_that_is_not_there(channel: Channel) -> None:
    result = execution.run(channel, ["no-such-program"], timeout=30)
    assert result.returncode == 127
    assert "no-such-program: No such file" in result.stderr


def test_arguments_are_passed_exactly(channel: Channel) -> None:
    words = ["", "two words", "$HOME", "ü", "-x"]
    assert execution.run(channel, ["printf", "%s|", *words], timeout=30).stdout == "|two words|$HOME|ü|-x|"


def test_input_goes_through_both_ways_at_once(channel: Channel) -> None:
    # More than all pipes and sockets hold: passing it on one way at a time would block for ever.
    data = os.urandom(8 << 20)
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    threading.Thread(target=write).start()
    back = bytearray()
    with os.fdopen(reader, "rb", buffering=0) as stdin:
        code = execution.execute(
            channel, ["cat"], stdin=stdin.fileno(), stdout=back.extend, stderr=back.extend, timeout=30
        )
    assert (code, bytes(back) == data) == (0, True)


def test_a_command_that_does_not_read_its_input(channel: Channel) -> None:
    with Path(os.devnull).open("rb") as empty:
        code = execution.execute(
            channel, ["true"], stdin=empty.fileno(), stdout=bytearray().extend, stderr=bytearray().extend
        )
    assert code == 0


def test_a_child_left_behind_does_not_hold_us(channel: Channel) -> None:
    result = shell(channel, "sleep 600 & echo $!; exit 4")
    os.kill(int(result.stdout), signal.SIGKILL)
    assert result.returncode == 4


def test_what_comes_too_late_is_taken_without_a_reset(port: int) -> None:
    with closing(DirectChannel(port, TOKEN)) as channel:
        channel.send(b"A", b"true\0")
        frames: list[tuple[bytes, bytes]] = []
        while not frames:
            frames = channel.receive()
        assert frames == [(b"X", bytes(4))]
        for _ in range(100):
            channel.send(b"I", bytes(1000))


def test_hanging_up_kills_the_command(port: int, tmp_path: Path) -> None:
    channel = DirectChannel(port, TOKEN)
    os.mkfifo(tmp_path / "alive")
    channel.send(b"A", b"\0".join([b"sh", b"-c", f"exec sleep 600 >{tmp_path}/alive".encode()]) + b"\0")
    with (tmp_path / "alive").open("rb") as alive:
        channel.close()
        assert alive.read() == b"", "the pipe ends when the command does"


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(PeerLostError, match="does not answer"):
        DirectChannel(port, TOKEN)


def test_no_service_behind_the_relay(port: int, execd: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = probe.getsockname()[1]
    relay = RelayChannel(DirectChannel(port, TOKEN), "127.0.0.1", TOKEN, port=nobody, relay=str(execd))
    with closing(relay), pytest.raises(PeerLostError, match="Connection refused"):
        execution.run(relay, ["true"], timeout=30)


def test_a_conversation_line_by_line(channel: Channel) -> None:
    script = 'while read -r line; do echo "heard $line"; done; echo over >&2; exit 3'
    talk = execution.Conversation(channel, ["sh", "-c", script])
    assert [talk.ask(word, 30) for word in ("one", "two")] == ["heard one", "heard two"]
    talk.end(30)


def test_a_conversation_that_ends_too_soon_says_why(channel: Channel) -> None:
    talk = execution.Conversation(channel, ["sh", "-c", "read -r line; echo no >&2; exit 3"])
    with pytest.raises(PeerLostError, match=r"exited with 3 \(no\)"):
        talk.ask("one", 30)


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "0", TOKEN[:-1] + "e", "\0" * len(TOKEN)])
def test_nothing_is_run_for_a_stranger(port: int, tmp_path: Path, token: str) -> None:
    with closing(DirectChannel(port, token)) as channel:
        result = execution.run(channel, ["touch", str(tmp_path / "done")], timeout=30)
    assert (result.returncode, result.stderr) == (126, "execd: wrong token\n")
    assert not (tmp_path / "done").exists()


def test_nothing_is_run_for_one_who_does_not_say_who_he_is(port: int, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        words = b"touch\0" + bytes(tmp_path / "done") + b"\0"
        sock.sendall(b"A" + len(words).to_bytes(4, "big") + words)
        with sock.makefile("rb") as answer:
            assert b"wrong token" in answer.read(24)
    assert not (tmp_path / "done").exists()


# Runs in a network of its own, which is taken away: no packet goes either way any more.
SILENT = """
import socket, subprocess, sys
from pyroute2 import IPRoute

with IPRoute() as network:
    (loopback,) = network.link_lookup(ifname="lo")
    network.link("set", index=loopback, state="up")
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [sys.argv[1], "relay", "127.0.0.1", str(server.getsockname()[1]), "3"]
        relay = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        root, _ = server.accept()
        network.link("set", index=loopback, state="down")
        code = relay.wait(60)
        print(code, relay.stderr.read().strip())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network")
def test_a_root_that_ends_without_a_word_is_not_waited_for(execd: Path) -> None:
    words = ["unshare", "--net", sys.executable, "-c", SILENT, execd]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "125 execd: 127.0.0.1: Connection timed out"
