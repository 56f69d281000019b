# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel and an initrd of a user's, on the computer where the command runs, for a VM of the machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from multiroot import arch
from multiroot.errors import BadRequestError
from multiroot.vm import iscsi_login
from multiroot.vm.definition import VmDefinition
from multiroot.vm.guests import check_head
from multiroot.vm.kept_files import HASH, PIECE, check_length, is_kept_name

if TYPE_CHECKING:
    import grpc

    from multiroot.rpc.v1 import vm_pb2

_SEND_S = 600


def by_checksum(definition: VmDefinition) -> tuple[VmDefinition, Mapping[str, Path]]:
    """The VM with its files named as the machine knows them, and the files by these names.

    Raises BadRequestError for a file that can't be read, or that no VM starts from.
    """
    files: dict[str, Path] = {}
    changes: dict[str, Any] = {}

    def named(given: str, check: Callable[[BinaryIO], None]) -> str:
        if not given or is_kept_name(given):
            return given
        path = Path(given).expanduser()
        name = _checksum(path, check)
        files[name] = path
        return name

    changes["kernel"] = named(definition.kernel, _check_kernel)
    changes["initrd"] = named(definition.initrd, lambda _: None)
    changes["disks"] = tuple(
        replace(disk, login=named(disk.login, _check_login)) for disk in definition.disks
    )
    return replace(definition, **changes), files


def send(channel: grpc.Channel, files: Mapping[str, Path]) -> None:
    """Give the machine those of the files that it does not have yet."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    stub = vm_pb2_grpc.VmServiceStub(channel)
    for name, path in files.items():
        if not stub.FindFile(vm_pb2.FindFileRequest(name=name), timeout=60).found:
            stub.KeepFile(_pieces(name, path), timeout=_SEND_S)


def _check_kernel(file: BinaryIO) -> None:
    check_head(file.read(arch.current().kernel.head))


def _check_login(file: BinaryIO) -> None:
    iscsi_login.parse(file.read(iscsi_login.MOST + 1))


def _checksum(path: Path, check: Callable[[BinaryIO], None]) -> str:
    if path.is_dir():
        built = path / arch.current().kernel.built
        is_tree = check is _check_kernel and built.is_file()
        hint = f"the kernel in it is {built}" if is_tree else "give the file in it"
        raise BadRequestError(f"{path} is a folder", hint)
    if path.exists() and not path.is_file():
        raise BadRequestError(f"{path} is no regular file", "give a file")
    try:
        with path.open("rb") as file:
            check_length(os.fstat(file.fileno()).st_size)
            check(file)
            file.seek(0)
            return f"{HASH}{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        hint = "the file is to be on the computer where you type this"
        raise BadRequestError(f"cannot read {path}: {error.strerror}", hint) from error
    except BadRequestError as error:
        raise BadRequestError(f"{path}: {error.message}", error.hint) from error


def _pieces(name: str, path: Path) -> Iterator[vm_pb2.FilePiece]:
    from multiroot.rpc.v1 import vm_pb2

    with path.open("rb") as file:
        yield vm_pb2.FilePiece(name=name, size=os.fstat(file.fileno()).st_size)
        while data := file.read(PIECE):
            yield vm_pb2.FilePiece(data=data)
