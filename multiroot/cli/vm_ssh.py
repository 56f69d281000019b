# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm ssh`: log in to a guest as soon as it lets one in."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from multiroot import proc
from multiroot.cli.agent import lab_of_agent
from multiroot.cli.commands import Command
from multiroot.cli.output import clean, console, plain, say
from multiroot.cli.vm_network import address_in, find_vm, tidy
from multiroot.cli.vm_signs import Signs
from multiroot.errors import BadRequestError, ConflictError, WaitTimeoutError
from multiroot.rpc.status import translated

SSH = 22
PATIENCE_S = 120  # many times the longest silence that was seen, see docs/vms.md
_SILENT_S = 1.0  # from here on it is told what is waited for
_ANSWER_S = 5.0  # for one try: a guest that has nobody at that address lets one wait
_AGAIN_S = 0.5  # nobody tells of a server that starts in a guest
# States in which no guest comes up by itself, and the command for each.
_SEE_TO_IT = {"stopped": "start", "paused": "resume", "failed": "show", "lost": "show"}
_GREETING = 255  # bytes of its first line, at most (RFC 4253, 4.2)


@click.command(
    cls=Command, example="multiroot vm ssh vm0 -- uname -r", context_settings={"ignore_unknown_options": True}
)
@click.argument("name")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--user", "-l", default="root", show_default=True, help="Whom to log in as.")
@click.option(
    "--identity",
    "-i",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The private key to log in with.",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.IntRange(0, 86400),
    default=PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long a guest that lets nobody in may show nothing new; 0: not at all.",
)
def ssh(name: str, words: tuple[str, ...], user: str, identity: Path | None, patience_s: int) -> None:
    """Log in to the guest of the VM NAME with ssh(1), or run COMMAND there.

    A guest that comes up is waited for, as long as its console says something new, or it gets an address. The
    session goes on while the VM changes roots. Ends with the exit code of ssh.
    """
    if not proc.find("ssh"):
        raise BadRequestError("there is no ssh here", "apt-get install openssh-client")
    way = Way(name)
    if missing := way.missing():
        signs = Signs(name)
        with signs if patience_s else nullcontext():
            wait(way, missing, patience_s, signs)
    proc.become([*way.argv, "-l", user, *(["-i", str(identity)] if identity else []), *words])


class Way:
    """To a VM's SSH server: `argv` is the ssh command up to its options, once `missing` finds nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.argv: list[str] = []
        self._console = f"see what it does: multiroot vm console {name} --history"
        self.look = self._console
        self._lab = lab_of_agent()
        self._address = ""
        self._tidied = False

    def missing(self) -> str:
        """What the guest lacks so far, "" if its server answers; `look` says where to see more. Raises
        ConflictError if none will come, PeerLostError if there is nobody to ask.

        An agent that is amid an update may take its time.
        """
        try:
            with translated("the agent"):
                self._tidy()
                vm = find_vm(self.name)
        except WaitTimeoutError as error:
            if self._lab:
                from multiroot.lab.trouble import check_machine

                check_machine(self._lab)
            self.look = error.hint
            return error.message
        self.look = self._console
        if verb := _SEE_TO_IT.get(vm.state):
            raise ConflictError(
                f"{self.name} does not run, it is {vm.state}", f"see to it: multiroot vm {verb} {self.name}"
            )
        address = address_in(vm)
        if not address:
            return "it has asked for no address yet"
        if address != self._address:
            self.argv, self._connect = self._lead(address)
            self._address = address
        return self._silence()

    def _tidy(self) -> None:
        if self._lab and not self._tidied:
            tidy(self._lab)
            self._tidied = True

    def _silence(self) -> str:
        """Why nobody greets."""
        try:
            with self._connect() as connection:
                if connection.recv(_GREETING):
                    return ""
        except TimeoutError:
            return f"nobody answers at {self._address} yet"
        except OSError:
            pass
        return f"nothing listens at port {SSH} of {self._address} yet"

    def _lead(self, address: str) -> tuple[list[str], Callable[[], socket.socket]]:
        """A guest is known by its name: its port differs from lab to lab."""
        lab, alias = self._lab, ["-o", f"HostKeyAlias={self.name}"]
        if lab is None:
            from multiroot.net import namespace

            return [*namespace.EXEC, "ssh", *alias, address], lambda: namespace.connect(
                address, SSH, _ANSWER_S
            )
        from multiroot.lab import forwards

        port = forwards.add(lab, address, SSH, vm=self.name).port
        options = (
            f"UserKnownHostsFile={forwards.known_hosts(lab, self.name)}",
            "StrictHostKeyChecking=accept-new",
        )
        more = [word for each in options for word in ("-o", each)]
        argv = ["ssh", "-p", str(port), *alias, *more, forwards.HOST]
        return argv, lambda: socket.create_connection((forwards.HOST, port), _ANSWER_S)


def wait(
    way: Way,
    missing: str,
    patience_s: float,
    signs: Signs,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause_s: float = _AGAIN_S,
) -> None:
    """Until the server answers, as long as there are signs of the guest's coming up: its console says
    something new, or it lacks something else than it has lacked so far, `missing` at first.

    Says on stderr what it lacks, once that takes more than a moment. Raises WaitTimeoutError.
    """
    since = sign = clock()
    lacked: set[str] = set()
    with _shown(signs) as show:
        while missing:
            if missing not in lacked:
                lacked.add(missing)
                sign = clock()
            if clock() - sign >= patience_s:
                past = _past(signs) if patience_s else ""
                raise WaitTimeoutError(f"{way.name} lets nobody in by SSH: {missing}{past}", way.look)
            if clock() - since >= _SILENT_S:
                show(f"{way.name}: {missing}; waiting for it, Ctrl-C leaves")
            if signs.wait(pause_s):
                sign = clock()
            missing = way.missing()


def _past(signs: Signs) -> str:
    if signs.last:
        return f"; its console has said nothing new since: {signs.last}"
    return "; its console has said nothing meanwhile"


@contextmanager
def _shown(signs: Signs) -> Iterator[Callable[[str], None]]:
    """To say what is waited for: on a terminal in one line that goes again, with what the guest said last;
    else when it changes.
    """
    terminal = console(stderr=True)
    told: set[str] = set()

    def tell(line: str) -> None:
        if line not in told:
            say(line, err=True)
            told.add(line)

    if not terminal.is_terminal:
        yield tell
        return
    with terminal.status("") as status:

        def update(line: str) -> None:
            room = max(0, terminal.width - len(line) - 6)
            status.update(f"{plain(line)}  [dim]{plain(clean(signs.last)[:room])}[/]")

        yield update
