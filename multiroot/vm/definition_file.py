# SPDX-License-Identifier: GPL-2.0-or-later
"""A TOML file that defines a VM: `vm run --file` reads it, `vm show --toml` prints it.

Its keys are the fields of a definition. It is read without pydantic, because `vm run` works in a root, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from multiroot import toml_files
from multiroot.errors import BadRequestError
from multiroot.rpc import border
from multiroot.toml_files import shortened
from multiroot.vm.definition import VmDefinition, check_name
from multiroot.vm.fields import from_file, to_file
from multiroot.vm.messages import definition_to_proto


def read(path: Path, name: str | None = None) -> VmDefinition:
    """The definition in a file, of a VM called `name` if that is given, as it is before `checked`.

    Raises BadRequestError, which names the file, for what defines no VM.
    """
    if name is not None:
        check_name(name)
    try:
        data = toml_files.read(path)
    except FileNotFoundError as error:
        raise BadRequestError(
            f"no file {path}", f"make one of a VM that there is: multiroot vm show NAME --toml >{path}"
        ) from error
    return _definition(data, str(path), name)


def parse(text: str, name: str) -> VmDefinition:
    """The same of a file's text, of a VM called `name`."""
    return _definition(toml_files.parsed("the text", text), "the text", name)


def _definition(data: dict[str, Any], where: str, name: str | None) -> VmDefinition:
    try:
        definition = from_file(data if name is None else {"name": name, **data}, VmDefinition)
        definition.checked()
        border.check(definition_to_proto(definition))
    except BadRequestError as error:
        raise BadRequestError(f"{where}: {shortened(error.message)}", error.hint) from error
    return definition if name is None else definition.called(name)


def write(definition: VmDefinition) -> str:
    """The text of a file from which `read` makes this definition. Raises BadRequestError for one that `read`
    would refuse.
    """
    definition.checked()
    return tomli_w.dumps(to_file(definition))
