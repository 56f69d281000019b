# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may speak to a root: not its guests, not a root without the keys, nobody without the lab's token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.errors import StrangerError
from multiroot.lab import agents, forwards
from multiroot.lab.execution import Conversation
from multiroot.lab.lab import Lab
from multiroot.net import namespace
from multiroot.rpc import client
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

WATCH = (Path(__file__).parent / "guest/watch_frames.py").read_text()
ROOTS = ("old", "new")
SCAN_TIMEOUT_S = 600
# Beside what roots listen on: where agents and the lab's command server ever did, and usual services.
PORTS = ("22", "53", "80", "111", "443", "2049", "5900-5910", "7600-7799")


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A lab with two roots and no VM."""
    lab = labs_factory.get(kernel="6.12", vms=2)
    found = Cli(lab)
    found.ok("root", "launch", "--kernel", "6.12", "--cpus", "3")
    yield found
    labs_factory.discard(lab)


def said(lab: Lab, root: str, *words: str) -> str:
    done = lab.run(words, root=root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def addresses_of(lab: Lab, root: str) -> list[str]:
    """All addresses of a root, on whatever device, but those that mean the asker itself anywhere."""
    links = json.loads(said(lab, root, "ip", "-json", "address"))
    return [info["local"] for link in links for info in link["addr_info"] if info["scope"] != "host"]


def ports_of(lab: Lab, root: str) -> list[str]:
    """Where somebody listens in a root."""
    lines = said(lab, root, "ss", "-tlnH").splitlines()
    return sorted({line.split()[3].rpartition(":")[2] for line in lines})


def scan(lab: Lab, root: str, name: str) -> dict[str, dict[str, int]]:
    """What a scanning guest has found, by address; what its own frames got it is under "frames"."""
    found: dict[str, dict[str, int]] = {}
    text = ""
    with client.connect(lab.agent_address, root=root) as channel, translated("the agent"):
        stub = vm_pb2_grpc.VmServiceStub(channel)
        request = vm_pb2.ConsoleRequest(name=name, history=True)
        for answer in stub.Console(iter([request]), timeout=SCAN_TIMEOUT_S):
            text += answer.output.decode(errors="replace")
            if "SCAN done" in text:
                break
    for line in text.splitlines():
        words = (
            dict(word.partition("=")[::2] for word in line.split()[1:]) if line.startswith("SCAN ") else {}
        )
        if words and words.keys() != {"done"}:
            at = words.pop("at", "frames")
            found[at] = {key: int(value) for key, value in words.items()}
    return found


def test_a_guest_reaches_nothing_of_either_root(cli: Cli) -> None:
    """A guest in each root scans all addresses of both, by every way in that it has.

    Proves that no connection is taken or refused, that no frame of its own making is answered, and that none
    of its frames is on any device of a root's own network. What it can reach, the bridge of its network, it
    does reach. The uplink is unplugged meanwhile.
    """
    lab = cli.lab
    # The world outside answers for whom it does not know. Here it is about the machine.
    forwards.plug(lab.state, connected=False)
    addresses = [each for root in ROOTS for each in addresses_of(lab, root)]
    listened = [port for root in ROOTS for port in ports_of(lab, root)]
    assert {"10.77.0.1", "10.0.2.15"} < set(addresses)
    assert {"7700", "7701", "7702"} <= set(listened), (
        "the agents and the command server are what it looks for"
    )
    ports = dict.fromkeys((*listened, *PORTS))
    aim = f"scan.at={','.join(dict.fromkeys(addresses))} scan.ports={','.join(ports)}"
    with ExitStack() as stack:
        watched = {}
        for root in ROOTS:
            for where in ((), namespace.EXEC):
                channel = stack.enter_context(closing(lab.channel(root)))
                watched[root, where] = Conversation(channel, [*where, "python3", "-u", "-c", WATCH])
                assert watched[root, where].next(60) == "watching"
        macs = {}
        for number, root in enumerate(ROOTS, 1):
            name, mac = f"scanner-{root}", f"52:54:00:77:00:{number:02x}"
            how = f"rdinit=/scanner scan.ip=10.77.1.20{number}/16 scan.via=10.77.2.{number} {aim}"
            where = () if root == "old" else ("--root", "new")
            cli.ok("vm", "run", name, *where, "--memory", "128M", "--mac", mac, "--append", how)
            macs[root] = mac
        for number, root in enumerate(ROOTS, 1):
            found = scan(lab, root, f"scanner-{root}")
            bridge, frames = found.pop(f"10.77.2.{number}"), found.pop("frames")
            assert bridge["answered"] == bridge["tried"] > 200
            assert bridge["open"] == 0
            assert set(found) == set(addresses)
            assert {at: (each["open"], each["answered"]) for at, each in found.items()} == dict.fromkeys(
                found, (0, 0)
            )
            assert frames["crafted"] > 100
            assert frames["heard"] == 0
        for (root, where), watch in watched.items():
            stations = set(json.loads(watch.ask("", 60)))
            if where:
                assert macs[root] in stations
            else:
                assert not stations & set(macs.values()), root


def test_the_forwarded_port_wants_the_token(cli: Cli) -> None:
    """Before the end of the old root and for calls that are meant for the new one alike."""
    target = cli.lab.state.agent_target
    for root in (None, *ROOTS):
        with (
            client.connect(target, root=root) as channel,
            pytest.raises(StrangerError, match="does not know who calls"),
            translated("the agent"),
        ):
            agents.status(channel)


def test_what_must_be_secret_is(cli: Cli) -> None:
    """Token and keys are on no command line and in no file that others may read, in both roots."""
    lab = cli.lab
    for root, keys in (("old", "child"), ("new", "parent")):
        modes = said(
            lab, root, "sh", "-c", "cd /run/multiroot && stat -c '%a %n' . agent.sock token keys/*/*"
        )
        assert set(modes.splitlines()) == {
            "700 .",
            "600 agent.sock",
            "600 token",
            *(f"600 keys/{keys}/{name}.pem" for name in ("certificate", "key", "peer")),
        }
        key = said(lab, root, "sed", "-n", "2p", f"/run/multiroot/keys/{keys}/key.pem").strip()
        for secret in (key, lab.state.token):
            told = said(
                lab, root, "sh", "-c", "cat /proc/cmdline /proc/[0-9]*/cmdline /var/lib/multiroot/* || true"
            )
            assert secret not in told.replace("\0", " ")
        assert said(lab, root, "cat", "/run/multiroot/token").strip() == lab.state.token


def test_a_root_without_the_keys_is_refused(cli: Cli) -> None:
    """Somebody on the roots' own network gets nothing from an agent without a certificate that it knows."""
    ask = (
        "import sys, grpc\n"
        "from multiroot.rpc.v1 import root_pb2, root_pb2_grpc\n"
        "from multiroot.rpc.keys import make_pair\n"
        "target = sys.argv[1]\n"
        "mine, _ = make_pair()\n"
        "stranger = grpc.ssl_channel_credentials(mine.peer, mine.key, mine.certificate)\n"
        "for channel in (grpc.insecure_channel(target), grpc.secure_channel(target, stranger)):\n"
        "    ask = root_pb2_grpc.RootServiceStub(channel).GetStatus\n"
        "    try: print(ask(root_pb2.GetStatusRequest(), timeout=20))\n"
        "    except grpc.RpcError as error: print('refused')\n"
    )
    number = str(agents_of(cli)["root"])
    for root, target in (("old", f"10.77.0.{number}:7700"), ("new", "10.77.0.1:7702")):
        assert said(cli.lab, root, "python3", "-c", ask, target) == "refused\nrefused\n"


def agents_of(cli: Cli) -> dict[str, object]:
    shown = cli.data("root", "show", "new")
    assert isinstance(shown, dict)
    return shown
