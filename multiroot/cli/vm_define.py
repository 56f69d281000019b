# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm define` and `multiroot vm edit`: VMs that do not run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from multiroot.cli import editing, vm_files
from multiroot.cli.agent import connect, goes_on
from multiroot.cli.commands import Command
from multiroot.cli.output import json_option, print_json, say
from multiroot.cli.vm import LOOK, root_option, vm_json
from multiroot.cli.vm_options import (
    change_options,
    changed,
    check_yaml,
    definition_options,
    is_typed,
    name_argument,
    name_or_file,
    wanted,
)
from multiroot.errors import BadRequestError, ConflictError
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.definition import VmDefinition
from multiroot.vm.definition_file import parse, read, write
from multiroot.vm.messages import definition_from_proto, definition_to_proto


@click.command(cls=Command, example="multiroot vm define vm0 --memory 512M --cpus 2")
@name_or_file
@definition_options
@root_option
@json_option
@click.pass_context
def define(
    context: click.Context,
    /,
    name: str | None,
    file: Path | None,
    root: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Have the VM NAME, and do not start it: `multiroot vm start` does, in any root.

    A file for --file has the keys that `multiroot vm show NAME --toml` prints. What neither the command line
    nor the file says has its default.
    """
    definition, files = vm_files.by_checksum(wanted(context, name, file, given))
    with connect(root) as channel:
        vm_files.send(channel, files)
        request = vm_pb2.DefineVmRequest(definition=definition_to_proto(definition))
        with goes_on(LOOK):
            made = vm_pb2_grpc.VmServiceStub(channel).Define(request, timeout=60)
    if as_json:
        print_json(vm_json(made))
    else:
        say(f"{made.definition.name} is defined")


@click.command(cls=Command, example="multiroot vm edit vm0 --memory 1G")
@name_argument
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take all of it from this TOML file. Options that are given win over it.",
)
@change_options
@root_option
@json_option
@click.pass_context
def edit(
    context: click.Context, /, name: str, file: Path | None, root: str | None, as_json: bool, **given: Any
) -> None:
    """Change the VM NAME, which is stopped: what the options say, and nothing else.

    Without any of them it is opened in $EDITOR, as `multiroot vm show NAME --toml` prints it. What is refused
    can be edited again; if it is not, the text is kept in a file.
    """
    typed = any(is_typed(context, key) for key in given)
    if file is None and not typed and not editing.is_possible():
        raise BadRequestError(
            "nothing to change is given, and there is no terminal for an editor",
            f"give an option: multiroot vm edit {name} --memory 1G",
        )
    with connect(root) as channel:
        stub = vm_pb2_grpc.VmServiceStub(channel)
        found = stub.Get(vm_pb2.GetVmRequest(name=name), timeout=10)
        if found.state != "stopped":
            raise ConflictError(f"{name} is {found.state}", f"stop it first: multiroot vm stop {name}")

        def change(before: VmDefinition, source: object) -> vm_pb2.Vm:
            made = changed(context, before, given)
            made.checked()
            check_yaml(context, made, str(source), given)
            made, files = vm_files.by_checksum(made)
            vm_files.send(channel, files)
            with goes_on(LOOK):
                return stub.Edit(vm_pb2.EditVmRequest(definition=definition_to_proto(made)), timeout=60)

        after: vm_pb2.Vm | None
        if file is not None:
            after = change(read(file, name), file)
        elif not found.definition.cpus:
            raise ConflictError(found.error or f"nobody knows {name}", f"multiroot vm rm {name}")
        else:
            before = definition_from_proto(found.definition)
            after = (
                change(before, "")
                if typed
                else editing.edited(
                    write(before),
                    lambda text: change(parse(text, name), "the text"),
                    name=name,
                    again=f"multiroot vm edit {name} --file",
                )
            )
    if as_json:
        print_json(vm_json(after or found))
    elif after is None or after.definition == found.definition:
        say("nothing was changed")
    else:
        was, now = definition_from_proto(found.definition), definition_from_proto(after.definition)
        say(f"{name} is changed: {', '.join(_other_fields(was, now))}")


def _other_fields(before: VmDefinition, after: VmDefinition) -> list[str]:
    """What is not as it was, by its names in a file. A file changes also what it leaves out."""
    return [each.name for each in fields(before) if getattr(before, each.name) != getattr(after, each.name)]
