# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab ui`: the page of a lab or of a recording, served on this computer's loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from multiroot.cli.commands import Command
from multiroot.cli.output import say
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.errors import BadRequestError, ConflictError

if TYPE_CHECKING:
    from multiroot.watch.recording import Recording

PORT = 8620
END_S = 10.0  # for a page's server that is to end
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(cls=Command, example="multiroot lab ui --port 0")
@click.option("--name", default="default", show_default=True, help="Which lab; it may come up later.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port of the loopback; 0 is any free one.",
)
@click.option("--kernel", default="6.12", show_default=True, help="What Launch and Next generation boot.")
@click.option("--replay", type=_FILE, metavar="FILE", help="Show this recording; no lab is needed.")
@click.option(
    "--export", type=OUTPUT_FILE, metavar="HTML", help="Write page and recording as one file instead."
)
@click.option(
    "--picture",
    type=OUTPUT_FILE,
    metavar="IMAGE",
    help="Write the recording's handoff as an animated picture (.webp, .png, .gif) instead; needs Chromium.",
)
def ui(
    name: str, port: int, kernel: str, replay: Path | None, export: Path | None, picture: Path | None
) -> None:
    """Serve the page that shows the machine, its kernels and the VMs that cross, for a browser here.

    The address that it prints ends in a token. Who opens the page without that may look and not act.
    """
    if (export or picture) and replay is None:
        raise click.UsageError("--export and --picture are of a recording: say --replay FILE")
    for made in (export, picture):
        if made and replay and made.exists() and made.samefile(replay):
            raise BadRequestError(f"{made} is the recording itself", "name another file")
        if made and os.path.lexists(made):
            raise ConflictError(f"{made} is there already", "give it the name of a new file")
    if replay is None:
        _serve_lab(name, port, kernel)
        return
    from multiroot.watch.recording import Recording

    recording = Recording(replay)
    recording.check()
    if export:
        _export(recording, export)
    if picture:
        from multiroot.page import picture as pictures

        pictures.write(recording, picture)
        say(f"written: {picture}")
    if not export and not picture:
        _serve_recording(recording, port)


def _export(recording: Recording, out: Path) -> None:
    from multiroot.page import bundle

    bundle.write(recording, out, _bench())
    say(f"written: {out}, which needs no server and no network")


def _serve_recording(recording: Recording, port: int) -> None:
    from multiroot.page import server

    at = server.listen(port)
    say(f"http://{server.HOST}:{at.getsockname()[1]}/")
    sys.stdout.flush()
    server.serve(server.application(server.Served(recording=recording.path, bench=_bench)), at)


def _serve_lab(name: str, port: int, kernel: str) -> None:
    from multiroot.lab import state
    from multiroot.page import living, server
    from multiroot.page.actions import Actions, catalogue

    state.folder(name)  # a bad name is told of at once
    token = living.token(name)
    lab = living.Living(name)
    served = server.Served(
        lab=name,
        actions=Actions(catalogue(kernel, name), lab.command),
        bench=_bench,
        board=lambda: lab.board,
        token=token,
    )
    at = server.listen(port)
    say(f"http://{server.HOST}:{at.getsockname()[1]}/#token={token}")
    sys.stdout.flush()
    server.serve(server.application(served, lab.events), at)


def _bench() -> dict[str, object]:
    from multiroot.lab import paths
    from multiroot.page import comparison

    return comparison.newest(paths.state_path() / "bench")


@contextmanager
def beside(name: str, *, keep: bool = False) -> Iterator[None]:
    """The page of lab `name` while something else goes on; with `keep` also afterwards."""
    from multiroot import proc
    from multiroot.lab import paths

    log = paths.make_dir(paths.state_dir() / "page") / f"{name}.log"
    words = [sys.executable, "-m", "multiroot.cli.main", "lab", "ui", "--name", name, "--port", "0"]
    server = proc.spawn(words, log=log, piped=True)
    try:
        line = server.stdout.readline().decode().strip() if server.stdout else ""
        say(f"the page: {line}" if line else f"the page's server did not start: see {log}", err=True)
        yield
    finally:
        if not keep:
            server.terminate()
            server.wait(END_S)
