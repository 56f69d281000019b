# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm ssh`: log in to a guest as soon as it lets one in."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import click

from multiroot import proc
from multiroot.cli.agent import lab_of_agent
from multiroot.cli.commands import Command
from multiroot.cli.output import say
from multiroot.cli.vm_network import address_in, find_vm, tidy
from multiroot.errors import BadRequestError, ConflictError, WaitTimeoutError
from multiroot.rpc.status import translated

SSH = 22
WAIT_S = 60
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
    "--wait",
    "wait_s",
    type=click.IntRange(0, 86400),
    default=WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long the guest may take until its SSH server answers.",
)
def ssh(name: str, words: tuple[str, ...], user: str, identity: Path | None, wait_s: int) -> None:
    """Log in to the guest of the VM NAME with ssh(1), or run COMMAND there.

    A guest that is still booting is waited for. The session goes on while the VM changes roots. Ends with the
    exit code of ssh.
    """
    if not proc.find("ssh"):
        raise BadRequestError("there is no ssh here", "apt-get install openssh-client")
    way = Way(name)
    wait(way, wait_s)
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


def wait(way: Way, patience_s: float) -> None:
    """Until the server answers; says what the guest lacks whenever that changes. Raises WaitTimeoutError."""
    until = time.monotonic() + patience_s
    told = ""
    while missing := way.missing():
        if time.monotonic() >= until:
            raise WaitTimeoutError(f"{way.name} lets nobody in by SSH: {missing}", way.look)
        if missing != told:
            say(f"{way.name}: {missing}; waiting for it, Ctrl-C leaves", err=True)
            told = missing
        time.sleep(_AGAIN_S)
