# SPDX-License-Identifier: GPL-2.0-or-later
"""Doors to files on the machine's disks: two roots of one process, and a server that says what it hears."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.storage import filesystems, storage
from multiroot.storage.daemon import Daemon
from multiroot.storage.filesystems import Filesystem
from multiroot.storage.storage import Endpoint, Storage, Surroundings
from multiroot.vm import disk, nbd
from multiroot.vm.disk import LocalFile
from multiroot.vm.disk_servers import missing

FILE = LocalFile("/srv/web.raw")
GREETING = b"hello"
SRV = Filesystem("0b1c", "ext4", "/srv", "rw")
WAIT_S = 20.0


class EchoServer:
    """Stands for a file's daemon: greets, and says again what it hears."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.heard = b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._attend, args=(sock,), daemon=True).start()

    def _attend(self, sock: socket.socket) -> None:
        with sock, suppress(BrokenPipeError, ConnectionResetError):  # who only looks hangs up at once
            sock.sendall(GREETING)
            while data := sock.recv(65536):
                self.heard += data
                sock.sendall(data)


class World:
    """Roots, and which of them have the file's disk mounted."""

    def __init__(self, folder: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server: EchoServer | None = None
        self.mounted = True
        self.may = True
        self.asked: list[str] = []
        self.ended = threading.Event()
        self._stack = stack
        monkeypatch.setattr(disk, "DOORS", folder / "d")
        monkeypatch.setattr(filesystems, "is_here", lambda _: self.mounted)
        monkeypatch.setattr(filesystems, "of", lambda _: SRV)
        monkeypatch.setattr(filesystems, "of_machine", lambda: (SRV,))
        monkeypatch.setattr(storage, "_pid", lambda _: -1)  # as if another process had come
        monkeypatch.setattr(Daemon, "ensure", lambda daemon: self._serve(daemon.socket))
        monkeypatch.setattr(Daemon, "end", lambda _: self._end())

    def _serve(self, path: Path) -> None:
        if self.server is None or self.ended.is_set():
            self.ended.clear()
            path.unlink(missing_ok=True)
            self.server = EchoServer(path)

    def _end(self) -> None:
        self.ended.set()

    def root(self, others: Callable[[str], Endpoint | None] = lambda _: None) -> Storage:
        def ask(path: str) -> Future[Endpoint | None]:
            self.asked.append(path)
            answer: Future[Endpoint | None] = Future()
            try:
                answer.set_result(others(path))
            except MultirootError as error:
                answer.set_exception(error)
            return answer

        made = Storage(Surroundings("127.0.0.1", ask, lambda _: self.may))
        self._stack.callback(made.close)
        return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack, monkeypatch)


def come(file: LocalFile = FILE) -> socket.socket:
    """A VMM at the door."""
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(WAIT_S)
    made.connect(str(file.door))
    return made


def test_a_vmm_reaches_a_file_of_its_own_root(world: World) -> None:
    world.root().open_door(FILE)
    with come() as vmm:
        assert vmm.recv(100) == GREETING
        vmm.sendall(b"write this")
        assert vmm.recv(100) == b"write this"
    assert not world.asked
    assert missing(1, [FILE]) == set()


def test_a_file_that_nobody_uses_any_more_is_served_no_more(world: World) -> None:
    """Who has stopped its VM may replace the file, or unmount its disk."""
    world.root().open_door(FILE)
    with come() as one, come() as other:
        for vmm in (one, other):
            assert vmm.recv(100) == GREETING
        one.close()
        other.sendall(b"still there")
        assert other.recv(100) == b"still there"
        assert not world.ended.is_set()
    assert world.ended.wait(WAIT_S)
    with come() as again:
        assert again.recv(100) == GREETING


def test_a_file_that_another_root_would_not_find_is_not_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_a_part(_: str) -> None:
        raise ConflictError("is on a part of a filesystem")

    monkeypatch.setattr(filesystems, "of", is_a_part)
    with pytest.raises(ConflictError, match="part of a filesystem"):
        world.root().serve(FILE.path)
    assert world.server is None


def test_filesystems_that_no_vm_uses_go_along(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM that is stopped now may have its disk there."""
    monkeypatch.setattr(storage, "running", lambda _: ())
    assert world.root().stop() == (SRV,)


def test_a_file_of_another_root_is_asked_for_there(world: World) -> None:
    has = world.root()

    def others(path: str) -> Endpoint:
        world.mounted = True
        try:
            return has.serve(path)
        finally:
            world.mounted = False

    world.mounted = False
    world.root(others).open_door(FILE)
    with come() as vmm:
        assert vmm.recv(100) == GREETING
        vmm.sendall(bytes(100_000))
        left = 100_000
        while left:
            left -= len(vmm.recv(left))
    assert world.asked == [FILE.path]


def test_a_root_that_ended_without_a_word_keeps_no_vmm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests have no answer; the VMM comes again and is led to who has the disk now."""
    monkeypatch.setattr(filesystems, "come", lambda _: None)
    world.mounted = False
    with socket.create_server(("127.0.0.1", 0)) as dead:
        there = Endpoint("127.0.0.1", dead.getsockname()[1], b"key")
        root = world.root(lambda _: there)
        root.open_door(FILE)
        with come() as vmm, dead.accept()[0] as server:
            server.sendall(GREETING)
            assert vmm.recv(100) == GREETING
            vmm.sendall(b"a request")
            root.part_from("10.0.0.1")  # another one
            vmm.settimeout(0.2)
            with pytest.raises(TimeoutError):
                vmm.recv(100)
            vmm.settimeout(WAIT_S)
            root.part_from("127.0.0.1")
            assert vmm.recv(100) == b""
        world.mounted = True
        with come() as again:
            assert again.recv(100) == GREETING


def test_who_has_lost_its_vm_writes_nothing_more(world: World) -> None:
    world.root().open_door(FILE)
    with come() as vmm:
        assert vmm.recv(100) == GREETING
        vmm.sendall(b"before")
        assert vmm.recv(100) == b"before"
        world.may = False
        vmm.sendall(b"after")
        assert vmm.recv(100) == b""
    with come() as vmm:
        assert vmm.recv(100) == b""
    assert world.server is not None
    assert world.server.heard == b"before"


def test_a_vmm_waits_until_somebody_has_the_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted: list[str] = []
    monkeypatch.setattr(filesystems, "come", lambda each: mounted.append(each.point))
    world.mounted = False
    asked = threading.Event()

    def nobody(_: str) -> None:
        asked.set()

    root = world.root(nobody)
    root.open_door(FILE)
    with come() as vmm:
        assert asked.wait(WAIT_S)
        world.mounted = True
        root.come([SRV])
        assert vmm.recv(100) == GREETING
    assert mounted == ["/srv"]
    assert not FILE.away.exists()


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_root_that_ends_while_it_is_asked_keeps_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    """The question is given up when the root's end is noticed, or never answered."""
    monkeypatch.setattr(filesystems, "come", lambda _: None)
    world.mounted = False
    asked = threading.Event()

    def ask(_: str) -> Future[Endpoint | None]:
        answer: Future[Endpoint | None] = Future()
        if cancelled:
            answer.cancel()
        asked.set()
        return answer

    root = Storage(Surroundings("127.0.0.1", ask, lambda _: True))
    try:
        root.open_door(FILE)
        with come() as vmm:
            assert asked.wait(WAIT_S)
            world.mounted = True
            root.come([SRV])
            assert vmm.recv(100) == GREETING
    finally:
        root.close()


def test_a_vmm_is_hung_up_whatever_went_wrong(world: World) -> None:
    """It comes again then."""
    world.mounted = False

    def fails(_: str) -> None:
        raise MultirootError("the other root's agent is away")

    root = world.root(fails)
    root.open_door(FILE)
    FILE.away.mkdir()  # no mark can be made
    with come() as vmm:
        assert vmm.recv(100) == b""


def test_no_daemon_is_started_by_a_root_that_leaves_its_disks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go_on = threading.Event(), threading.Event()

    def is_here(_: str) -> bool:
        looking.set()
        return go_on.wait(WAIT_S)

    monkeypatch.setattr(filesystems, "is_here", is_here)
    monkeypatch.setattr(storage, "running", lambda _: ())
    root = world.root()
    root.open_door(FILE)
    with come():
        assert looking.wait(WAIT_S)
        root.stop()
        go_on.set()
        until = time.monotonic() + WAIT_S
        while not missing(1, [FILE]):
            assert time.monotonic() < until
    assert world.server is None


def test_a_root_that_is_about_to_leave_its_disks_serves_on_and_begins_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {FILE.path: 7}
    monkeypatch.setattr(Daemon, "pid", property(lambda daemon: running.get(daemon.path, 0)))
    monkeypatch.setattr(storage, "running", lambda folder: [Daemon(path, folder) for path in running])
    monkeypatch.setattr(filesystems, "come", lambda _: None)
    root = world.root()
    root.open_door(FILE)
    assert root.settle() == [7]
    with come() as vmm:
        assert vmm.recv(100) == GREETING
    with pytest.raises(ConflictError, match=r"leaving the disk that /srv/other.raw is on"):
        root.serve("/srv/other.raw")
    root.come([SRV])
    world.server = None  # the other one's daemon is another
    assert root.serve("/srv/other.raw").key


def test_that_nobody_serves_it_is_told(world: World) -> None:
    world.mounted = False
    asked = [threading.Event(), threading.Event()]

    def fails(_: str) -> None:
        asked[asked[0].is_set()].set()
        raise MultirootError("the other root's agent is away")

    world.root(fails).open_door(FILE)
    with come():
        assert asked[1].wait(WAIT_S)  # the second try comes when the first one's failure is noted
        assert missing(1, [FILE]) == {FILE}


def test_who_does_not_know_the_key_is_turned_away(world: World) -> None:
    endpoint = world.root().serve(FILE.path)
    with socket.create_connection((endpoint.host, endpoint.port), WAIT_S) as sock:
        sock.sendall(bytes(len(endpoint.key)))
        assert sock.recv(100) == b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((endpoint.host, endpoint.port), WAIT_S)
    assert world.server is not None
    assert world.server.heard == b""


def test_a_root_serves_nothing_of_what_it_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[str] = []

    class Running(Daemon):
        def end(self) -> None:
            calls.append("end")

    def running(folder: Path) -> Sequence[Daemon]:
        return [Running(FILE.path, folder)]

    monkeypatch.setattr(storage, "running", running)
    monkeypatch.setattr(filesystems, "of", lambda _: SRV)
    monkeypatch.setattr(filesystems, "leave", lambda point: calls.append(f"umount {point}"))
    monkeypatch.setattr(filesystems, "come", lambda each: calls.append(f"mount {each.point}"))
    root = world.root()
    assert root.stop() == (SRV,)
    mounts = tmp_path / "mountinfo"
    mounts.write_text("40 22 254:0 / /srv rw,relatime shared:9 - ext4 /dev/vda rw\n")
    filesystems.leave_all([SRV], mounts, tmp_path)
    with pytest.raises(BadRequestError, match="not on a disk that this root has"):
        root.serve(FILE.path)
    root.come([SRV])
    assert root.serve(FILE.path).host == "127.0.0.1"
    assert calls == ["end", "umount /srv", "mount /srv"]


def test_the_agent_itself_may_look_at_a_file_and_is_told_why_nobody_has_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_pid", lambda _: os.getpid())
    world.may = world.mounted = False
    with pytest.raises(nbd.ServerGoneError, match=r"disk local:/srv/web.raw: No such file"):
        nbd.reach(FILE)  # no door is open
    world.root().open_door(FILE)
    with pytest.raises(nbd.ServerGoneError, match=r"disk local:/srv/web.raw: .*on no disk that a root has"):
        nbd.reach(FILE)
    world.mounted = True
    monkeypatch.setattr(nbd, "ANSWER_S", 0.5)
    with pytest.raises(nbd.ServerGoneError, match="timed out"):
        nbd.reach(FILE)  # what answers now is no NBD server


def test_no_root_leaves_a_file_behind_that_is_not_the_vms(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(_: Daemon) -> None:
        raise ConflictError("was replaced")

    monkeypatch.setattr(storage, "running", lambda folder: [Daemon(FILE.path, folder)])
    monkeypatch.setattr(Daemon, "check_file", replaced)
    root = world.root()
    with pytest.raises(ConflictError, match="was replaced"):
        root.settle()
    root.open_door(FILE)
    with come() as vmm:  # as before
        assert vmm.recv(100) == GREETING
