# SPDX-License-Identifier: GPL-2.0-or-later
"""multirootd: the agent of one root.

SIGTERM ends it; the VMs it runs go on and are adopted by its successor.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from multiroot import bugs, proc
from multiroot.agent import coming_up, memory, metrics_address
from multiroot.agent.agent import Agent
from multiroot.agent.coming_up import ComingUp
from multiroot.agent.context import Options
from multiroot.errors import BugError, MultirootError
from multiroot.root.identity import AGENT_SAYS
from multiroot.rpc.client import AGENT_SOCKET
from multiroot.rpc.token_file import TOKEN_FILE

log = logging.getLogger("multirootd")

# Seconds. While a VM moves, a thread waits for its QEMU (vm/qemu/monitor.py) beside the event loop, and both
# wake up at the same moments. Python's usual 5 ms until a thread makes room would be part of the blackout.
SWITCH_INTERVAL = 0.0002


def parse(argv: Sequence[str]) -> Options:
    """Options from the command line; `--debug` takes effect at once."""
    parser = argparse.ArgumentParser(prog="multirootd", description="The multiroot agent of this root.")
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a further gRPC address to listen on, such as 10.0.2.15:7700, for callers that bring the token; "
        "may be repeated",
    )
    parser.add_argument(
        "--token", type=Path, default=TOKEN_FILE, metavar="FILE", help="what such callers must bring"
    )
    parser.add_argument("--socket", type=Path, default=AGENT_SOCKET, help="unix socket for local commands")
    parser.add_argument("--kernels", type=Path, default=Path("/usr/lib/multiroot/kernels"))
    parser.add_argument("--guests", type=Path, default=Path("/usr/lib/multiroot/guests"))
    parser.add_argument(
        "--uplink",
        default="",
        metavar="CARD",
        help="the network card, by name or MAC address, that connects guests with the world outside; "
        "it is theirs alone, and when this root has it or gets it, it becomes a port of their bridge",
    )
    parser.add_argument(
        "--gateway",
        type=_ipv4,
        metavar="ADDRESS",
        help="the IPv4 address in the guests' network by which VMMs reach servers of disks elsewhere",
    )
    parser.add_argument(
        "--drivers",
        type=Path,
        metavar="FILE",
        help="a file that is locked while drivers are loaded; what needs them waits, and the rest does not",
    )
    parser.add_argument(
        "--metrics",
        default="",
        metavar="ADDRESS:PORT",
        help="tell metrics for Prometheus there, on the loopback or the control network; "
        "off unless asked for",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show every program that is run (or MULTIROOT_DEBUG=1)"
    )
    parser.add_argument(
        "--failpoints", action="store_true", help="take orders to fail at given points; for the lab alone"
    )
    words = parser.parse_args(argv)
    if words.debug or proc.debug_wanted():
        proc.show_commands()
    return Options(
        socket=words.socket,
        listen=tuple(words.listen),
        token=words.token,
        kernels=words.kernels,
        guests=words.guests,
        uplink=words.uplink,
        gateway=words.gateway or "",
        drivers=words.drivers,
        metrics=metrics_address.parse(words.metrics) if words.metrics else None,
        failpoints=words.failpoints,
    )


def _ipv4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


async def serve(options: Options, watch: ComingUp) -> None:
    """Run an agent until SIGTERM or SIGINT. It has come up when it answers all calls."""
    ended = asyncio.Event()
    loop = watch.loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    agent = Agent(options)
    await agent.start()
    try:
        await agent.learn()
        watch.done()
        memory.begin()
        await ended.wait()
    except Exception as error:
        # Those who have called meanwhile wait for an answer.
        ours = bugs.explain(error, sys.argv)
        agent.refuse(ours)
        if ours is error:
            raise
        raise ours from error
    finally:
        await agent.stop()


def allow_files() -> None:
    """As many open files as this process may have: a VM that waits for its turn holds a dozen."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def tell_kernel(error: MultirootError, kmsg: Path = coming_up.KMSG) -> None:
    """A root that waits for this one to join hears its kernel's messages alone (coordinator/join.py)."""
    coming_up.say(f"{AGENT_SAYS}{error}", kmsg)


def main(watch: ComingUp | None = None) -> None:
    """The console script. `watch` is of who began to watch before this was imported."""
    watch = watch or ComingUp().begin()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(name)s %(message)s",
        datefmt="%T",
    )
    logging.Formatter.converter = time.gmtime
    sys.setswitchinterval(SWITCH_INTERVAL)
    memory.begin()
    allow_files()
    try:
        asyncio.run(serve(parse(sys.argv[1:]), watch))
    except Exception as error:
        ours = bugs.explain(error, sys.argv)
        log.critical("%s", ours, exc_info=error if isinstance(ours, BugError) else None)
        tell_kernel(ours)
        sys.exit(ours.exit_code)
    finally:
        watch.done()


if __name__ == "__main__":
    main()
