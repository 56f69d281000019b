# SPDX-License-Identifier: GPL-2.0-or-later
"""When a VMM or a root dies, also amid a handoff, a guest's disk is as after a power cut at worst."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot import proc
from multiroot.demo import debian, streams
from multiroot.demo.debian_disks import LOCAL, MADE_BY, NAME, NBD, PMEM, LocalDisk
from multiroot.demo.debian_guest import WORK_S, DebianGuest
from multiroot.errors import MultirootError
from multiroot.failpoints import Action, FailPoint
from multiroot.faults.console_shell import ConsoleShell
from multiroot.faults.fault import side
from multiroot.faults.ground import APPEND, until
from multiroot.faults.runner import Operation
from multiroot.lab import forwards, lab, roots
from multiroot.lab.execution import Result
from multiroot.lab.recorder import console_socket
from multiroot.rpc import client
from multiroot.rpc.v1 import failpoint_pb2, failpoint_pb2_grpc
from multiroot.units import MIB

pytestmark = [pytest.mark.long, pytest.mark.timeout(5400)]

REACH_S = 240.0
KILL_VMMS = ["pkill", "-9", "-f", f"guest={NAME}"]
# The answer comes before the root dies.
PANIC = ["sh", "-c", "(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"]


@dataclass(frozen=True)
class Strike:
    """What happens to whom, at a step of a handoff to the new root or without one."""

    what: str
    root: str
    argv: list[str]
    point: FailPoint | None = None
    left: str = ""  # of a root that ends: what the other one says of the VM then


# By who dies; each is a test of its own, for each takes many minutes. A disk of the machine's own ends with
# the machine, so that nobody sees what a root that dies leaves in it.
STRIKES = {
    "giver": (
        Strike("kill -9 of the VMM", "old", KILL_VMMS),
        Strike("kill -9 of the giver's VMM with the state", "old", KILL_VMMS, FailPoint.GIVER_SENDING),
    ),
    "taker": (
        Strike("kill -9 of the taker's VMM with the state", "new", KILL_VMMS, FailPoint.TAKER_LOADED),
        Strike("kill -9 of the taker's VMM, which runs the guest", "new", KILL_VMMS, FailPoint.TAKER_RESUMED),
    ),
    "root": (
        Strike("a crash of the giver that runs the guest", "old", PANIC, FailPoint.GIVER_READY, "lost"),
        Strike("a crash of the giver, the taker owns the VM", "old", PANIC, FailPoint.TAKER_OWNED, "running"),
    ),
}
CASES = [*((who, disk) for disk in (PMEM, NBD) for who in STRIKES), ("giver", LOCAL), ("taker", LOCAL)]


class Place:
    """A lab machine, again and again; the disk outlives it, where it is not the machine's own."""

    def __init__(self, labs_factory: Labs, folder: Path, kind: str, stack: ExitStack) -> None:
        self.phases = labs_factory.phases
        self.disk = MADE_BY[kind](folder, self.phases, stack)
        self.folder = folder
        self.password = secrets.token_urlsafe(16)
        self.acknowledged = 0
        self._machine: lab.Lab | None = None
        stack.callback(self.down)

    @property
    def machine(self) -> lab.Lab:
        if self._machine is None:
            wanted = lab.Options(
                name="test-crash", kernel="6.12", kernels=("6.12",), vms=1, vm_memory=512 * MIB, append=APPEND
            )
            self._machine = lab.up(self.disk.machine(wanted), self.phases)
        return self._machine

    def down(self) -> None:
        if self._machine is not None:
            self._machine.down()
            self._machine = None

    @property
    def guest(self) -> DebianGuest:
        return DebianGuest(self.machine, self.disk, self.phases, self.folder, 512 * MIB, "seabios")

    def boot(self) -> streams.Login:
        """From the disk as it is, whatever became of the VM."""
        cli = Cli(self.machine)
        if not cli.data("vm", "list"):
            return self.guest.boot()
        cli.run("vm", "stop", NAME, "--force")
        cli.ok("vm", "start", NAME)
        return self.guest.login()

    def end_all(self) -> None:
        """Nobody of those who are left goes on."""
        for root in ("old", "new"):
            with suppress(MultirootError):
                self.machine.run(KILL_VMMS, root=root)

    def wait_for(self, state: str) -> None:
        """Until the new root, which is alone, says so of the VM."""
        console = ConsoleShell(self.machine.state.folder / console_socket("new"))
        until(lambda: console.look(NAME)["state"] == state, REACH_S, f"{NAME} is not {state}", lambda: None)

    def check_image(self) -> None:
        """What is in the disk is whole once the file system's journal has been replayed, in a copy."""
        local = isinstance(self.disk, LocalDisk)
        image = Path(self.disk.file) if local else self.disk.image
        copy = image.with_name("copy.ext4")
        # e2fsck that has replayed a journal opens the file system again, where the file begins.
        skip = f"skip={self.disk.offset()}"
        cut_out = ["dd", f"if={image}", f"of={copy}", "iflag=skip_bytes", skip, "bs=1M", "conv=sparse"]
        e2fsck = ["e2fsck"] if local else roots.loader_argv(self.disk.tools, "sbin/e2fsck")
        run = self._run_in_root if local else self._run
        for argv, good in (
            (cut_out, (0,)),
            ([*e2fsck, "-p", str(copy)], (0, 1)),
            ([*e2fsck, "-fn", str(copy)], (0,)),
            (["rm", str(copy)], (0,)),
        ):
            done = run(argv)
            assert done.returncode in good, done

    def _run_in_root(self, argv: list[str]) -> Result:
        return self.machine.run(argv, timeout=900)

    @staticmethod
    def _run(argv: list[str]) -> proc.Completed:
        return proc.run(argv, check=False, timeout=600)

    def check_rows(self, login: streams.Login) -> None:
        """Every acknowledged transaction is there once, and beside them the one under way at most."""
        asked = "SELECT count(*), count(DISTINCT n), max(n) FROM numbers"
        said = login.run(f'cd / && sudo -u postgres psql -Atc "{asked}"').strip()
        rows, different, last = map(int, said.split("|"))
        assert rows == different == last
        assert self.acknowledged <= last <= self.acknowledged + 1
        self.acknowledged = last


@pytest.fixture
def place(labs_factory: Labs, tmp_path: Path, disk: str) -> Iterator[Place]:
    labs_factory.make_room()
    with ExitStack() as stack:
        yield Place(labs_factory, tmp_path, disk, stack)
    shutil.rmtree(tmp_path)


@contextmanager
def paused(place: Place, strike: Strike) -> Iterator[None]:
    """In the body, a handoff to the new root stands still at the step; nobody waits for it afterwards."""
    assert strike.point
    root = side(strike.point)
    cli = Cli(place.machine)
    with client.connect(place.machine.agent_address, root=root) as channel:
        stub = failpoint_pb2_grpc.FailPointServiceStub(channel)
        # A crash of the giver ends this connection, so that nobody can let the taker go on.
        seconds = 10 if strike.left else 0
        stub.Arm(failpoint_pb2.ArmRequest(point=strike.point, action=Action.PAUSE, seconds=seconds))
        operation = Operation(lambda: cli.run("handoff", NAME))
        stub.AwaitReached(
            failpoint_pb2.AwaitReachedRequest(point=strike.point, timeout_s=REACH_S), timeout=REACH_S + 20
        )
        yield
        if not strike.left:
            stub.Disarm(failpoint_pb2.DisarmRequest(point=strike.point), timeout=60)
            operation.join(REACH_S)


@pytest.mark.parametrize(("who", "disk"), CASES)
def test_a_filesystem_is_as_after_a_power_cut(place: Place, who: str) -> None:
    """Proves that whatever dies, and when, ext4 in the guest's disk is whole once its journal was replayed,
    and that the guest boots from it and has every transaction that it has acknowledged, once.
    """
    login = place.boot()
    streams.serve_sql(login, place.password)
    for strike in STRIKES[who]:
        if strike.point:
            Cli(place.machine).run("root", "release", "--force")
            Cli(place.machine).ok("root", "launch", "--kernel", "6.12", "--append", APPEND)
        with working(place, login) as (sql, fio):
            if strike.point:
                with paused(place, strike):
                    place.machine.run(strike.argv, root=strike.root)
            else:
                place.machine.run(strike.argv, root=strike.root)
            if strike.left:
                place.wait_for(strike.left)
                place.down()
            else:
                place.end_all()
            sql.cut()
            sql.stop()
            fio.stop()
        place.acknowledged = sql.acknowledged
        place.check_image()
        login = place.boot()
        place.check_rows(login)
        assert debian.complaints_in(login.run("sudo dmesg")) == [], strike.what
    place.guest.power_off(login)
    assert place.disk.check(place.machine, "old")[0]


@contextmanager
def working(place: Place, login: streams.Login) -> Iterator[tuple[streams.Sql, streams.Fio]]:
    """PostgreSQL and fio write in the body, for long enough that something is under way."""
    port = forwards.add(place.machine.state, place.guest.address(), debian.SQL).port
    log = place.folder / "streams.log"
    sql = streams.Sql(port, place.password, place.acknowledged)
    with sql, streams.Fio(login, log) as fio:
        sql.wait_for(30, WORK_S)
        fio.wait_for(1, WORK_S)
        yield sql, fio
