# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command line says which VM, and what it is to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from multiroot.cli.agent import connect
from multiroot.cli.commands import MayBeEmpty
from multiroot.errors import MultirootError, found_in
from multiroot.vm.definition import VmDefinition
from multiroot.vm.fields import options, with_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMPLETION_S = 2.0  # whoever presses TAB waits no longer


def complete_name(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of VMs, stopped ones too; none if no agent says so at once."""
    import grpc
    from click.shell_completion import CompletionItem

    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    try:
        with connect(context.params.get("root")) as channel:
            stub = vm_pb2_grpc.VmServiceStub(channel)
            answer = stub.List(vm_pb2.ListVmsRequest(), timeout=_COMPLETION_S)
    except (MultirootError, grpc.RpcError):
        return []
    found = [(vm.definition.name, vm.state) for vm in answer.vms]
    return [CompletionItem(name, help=state) for name, state in found if name.startswith(incomplete)]


name_argument = click.argument("name", shell_complete=complete_name)


def _named(context: click.Context, param: click.Parameter, name: str | None) -> str | None:
    """A VM has a name, by its argument or by a file."""
    if name is None and context.params["file"] is None:
        raise click.MissingParameter("Or give a file that has one: --file FILE.", context, param, "'NAME'")
    return name


def name_or_file(command: Callable[..., None]) -> Callable[..., None]:
    """A new VM's name, or a file that has it."""
    command = click.option(
        "--file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,  # NAME is looked at after it
        help="Take the VM from this TOML file. NAME and options that are given win over it.",
    )(command)
    return click.argument("name", required=False, callback=_named)(command)


def definition_options(command: Callable[..., None], *, show_defaults: bool = True) -> Callable[..., None]:
    """An option for each field of a definition that has one."""
    for option in reversed(list(options(VmDefinition))):
        command = click.option(
            option.flag,
            option.key,
            cls=MayBeEmpty,
            metavar=option.metavar,
            default=option.default,
            multiple=option.multiple,
            show_default=show_defaults and option.default not in ("", ()),
            help=option.help,
        )(command)
    return command


def change_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a VM that has them already: what is not given stays."""
    return definition_options(command, show_defaults=False)


def wanted(
    context: click.Context, name: str | None, file: Path | None, given: Mapping[str, Any]
) -> VmDefinition:
    """The VM that the command line describes; raises BadRequestError if none can be so."""
    made = changed(context, _read(name, file), given)
    # Here already: in a message, 0 means that nothing was said.
    made.checked()
    check_yaml(context, made, str(file or ""), given)
    return made


def changed(context: click.Context, before: VmDefinition, given: Mapping[str, Any]) -> VmDefinition:
    """The same VM, but for what was typed."""
    return with_options(before, {key: value for key, value in given.items() if is_typed(context, key)})


def is_typed(context: click.Context, key: str) -> bool:
    """Whether the command line says anything of this option."""
    return context.get_parameter_source(key) is ParameterSource.COMMANDLINE


def check_yaml(
    context: click.Context, definition: VmDefinition, source: str, given: Mapping[str, Any]
) -> None:
    """Raises BadRequestError for user-data that cloud-init could not read. A root has nothing to read YAML
    with, and leaves that to cloud-init. What is not an option's file comes from `source`.
    """
    if not definition.user_data:
        return
    try:
        from multiroot.lab.seed import checked_user_data
    except ImportError:
        return
    of_option = "user_data" in given and is_typed(context, "user_data")
    with found_in(given["user_data"] if of_option else f"{source or definition.name}: user_data"):
        checked_user_data(definition.user_data)


def _read(name: str | None, file: Path | None) -> VmDefinition:
    """What options change: a VM's defaults, or what a file says."""
    if file is None:
        assert name is not None  # _named
        return VmDefinition(name)
    from multiroot.vm.definition_file import read

    return read(file, name)
