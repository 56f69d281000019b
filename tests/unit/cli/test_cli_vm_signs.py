# SPDX-License-Identifier: GPL-2.0-or-later
"""How long `vm ssh` waits: as long as a guest shows that it comes up."""

from __future__ import annotations

import pytest
from cli.conftest import FakeAgent
from hypothesis import given
from hypothesis import strategies as st

from multiroot.cli import vm_ssh
from multiroot.cli.vm_signs import Signs
from multiroot.cli.vm_ssh import Way
from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.rpc.v1 import vm_pb2

BOOT = [
    b"[    0.000000] Linux version 6.12",
    b"[    1.234567] Run /init as init process",
    b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mnetwork.target",
    b"Generating public/private rsa key pair.",
]
NO_ADDRESS, NO_SERVER = "it has asked for no address yet", "nothing listens at port 22 of 10.77.4.1 yet"


class Guest(Signs):
    """Its lines are (second, text); time goes on only while somebody waits for one."""

    def __init__(self, *lines: tuple[float, bytes]) -> None:
        super().__init__("deb")
        self.now = 0.0
        self._lines = list(lines)

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        while self._lines and self._lines[0][0] <= self.now:
            self.hear(self._lines.pop(0)[1] + b"\n")
        return super().wait(0)


class Wanting(Way):
    """Lacks these from these seconds on; nothing after the last one."""

    def __init__(self, guest: Guest, *lacks: tuple[float, str]) -> None:
        self.name, self.look = "deb", "see what it does"
        self._guest, self._lacks = guest, lacks

    def missing(self) -> str:
        return [what for at, what in self._lacks if at <= self._guest.now][-1]


def wait(guest: Guest, patience_s: float, *lacks: tuple[float, str]) -> float:
    """The second at which it let somebody in."""
    way = Wanting(guest, *lacks)
    vm_ssh.wait(way, way.missing(), patience_s, guest, clock=lambda: guest.now, pause_s=1)
    return guest.now


def test_a_first_boot_is_waited_for_while_it_says_something_new() -> None:
    """Key generation and cloud-init take minutes, without an end that anybody could know before."""
    said = [(50.0 * number, line) for number, line in enumerate(BOOT)]
    assert wait(Guest(*said), 60, (0, NO_ADDRESS), (160, NO_SERVER), (190, "")) == 190


def test_what_a_guest_lacks_is_a_sign_when_it_changes() -> None:
    """Its kernel may say nothing at all on the console."""
    assert wait(Guest(), 60, (0, NO_ADDRESS), (50, NO_SERVER), (100, "")) == 100


@pytest.mark.parametrize(
    "line",
    [
        b"T %x",
        b"[ %d.25] watchdog: stuck for %ds",
        b"\x1b[K[ *** ] A start job is running (%ds / no limit)\r",
    ],
)
def test_a_guest_that_only_counts_is_given_up(line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    said = [
        (float(second), line.replace(b"%x", b"%d") % ((second,) * line.count(b"%"))) for second in range(900)
    ]
    guest = Guest(*said)
    with pytest.raises(
        WaitTimeoutError, match=f"{NO_ADDRESS}; its console has said nothing new since: "
    ) as over:
        wait(guest, 60, (0, NO_ADDRESS))
    assert guest.last in over.value.message
    assert guest.now < 70
    assert capsys.readouterr().err == f"deb: {NO_ADDRESS}; waiting for it, Ctrl-C leaves\n"


def test_a_guest_that_falls_silent_is_given_up_and_its_last_words_are_told() -> None:
    guest = Guest(*[(20.0 * number, line) for number, line in enumerate(BOOT)])
    with pytest.raises(WaitTimeoutError, match=r"since: Generating public/private rsa key pair\. "):
        wait(guest, 60, (0, NO_ADDRESS))
    assert guest.now == 120


def test_a_guest_whose_console_says_nothing_is_told_to_be_one() -> None:
    with pytest.raises(WaitTimeoutError, match="its console has said nothing meanwhile"):
        wait(Guest(), 60, (0, NO_ADDRESS))


def test_nothing_is_said_of_a_guest_that_answers_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait(Guest(), 60, (0, NO_SERVER), (1, "")) == 1
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_what_the_guest_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    wait(Guest((2, b"Run [/init]")), 60, (0, NO_ADDRESS), (5, ""))
    said = capsys.readouterr().err
    assert f"deb: {NO_ADDRESS}; waiting for it, Ctrl-C leaves" in said
    assert "Run [/init]" in said
    assert not said.endswith("\n"), "the line goes again"


def test_a_guest_that_is_none_any_more_is_not_waited_for() -> None:
    guest = Guest()

    class Stopped(Wanting):
        def missing(self) -> str:
            if guest.now > 5:
                raise ConflictError("deb does not run, it is stopped")
            return NO_ADDRESS

    with pytest.raises(ConflictError, match="it is stopped"):
        vm_ssh.wait(Stopped(guest), NO_ADDRESS, 60, guest, clock=lambda: guest.now)
    assert guest.now < 10


@given(st.lists(st.binary(max_size=60), max_size=40), st.integers(1, 7))
def test_how_output_is_cut_into_pieces_changes_nothing(lines: list[bytes], size: int) -> None:
    output = b"\n".join(lines).decode("latin-1").encode("ascii", "replace") + b"\n"
    whole, pieces = Signs("deb"), Signs("deb")
    whole.hear(output)
    for at in range(0, len(output), size):
        pieces.hear(output[at : at + size])
    assert pieces.last == whole.last
    assert pieces.wait(0) == whole.wait(0)


def test_the_console_is_followed_and_asked_for_again_when_it_ends(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root that has it may be going."""
    monkeypatch.setattr("multiroot.cli.vm_signs._AGAIN_S", 0.001)
    agent.answer(
        "Console", vm_pb2.ConsoleResponse(output=b"Linux ver"), vm_pb2.ConsoleResponse(output=b"sion 6.12\n")
    )
    with Signs("deb") as signs:
        assert signs.wait(30)
        assert signs.last == "Linux version 6.12"
        agent.answer("Console", MultirootError("it went"))
        while len(agent.calls) < 4:
            assert not signs.wait(0.001)
        agent.answer("Console", vm_pb2.ConsoleResponse(output=b"Run /init\n"))
        assert signs.wait(30)
    assert signs.last == "Run /init"
    assert {call[2].name for call in agent.calls} == {"deb"}
