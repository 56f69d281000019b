# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images that somebody else made: checked, converted to raw, kept until they are removed.

They are in `${XDG_DATA_HOME:-~/.local/share}/multiroot/images`, not in the cache: nobody here could make them
again. qemu-img reads them, with the format that it found told to it, so that no file is taken for another
format later.
"""

from __future__ import annotations

import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from multiroot import proc
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.lab import disk_image, grub, image_lock, model_errors, paths, recipes, roots
from multiroot.lab.cache import Cache
from multiroot.phase_names import PhaseName
from multiroot.units import format_size
from multiroot.vm import partition_table
from multiroot.vm.disk_content import HEAD

_SUFFIX = ".raw"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_INFO_TIMEOUT_S = 60.0
_CONVERT_TIMEOUT_S = 3600.0
_BLANK = bytes(grub.SECTOR)
_BLOCK = 512  # of st_blocks, whatever the file system has
# Exit codes of `qemu-img check`: nothing wrong, space that nobody uses, a format that has nothing to check.
_CHECKED = (0, 3, 63)
_LOCKED = 'to get shared "write" lock'  # qemu-img, of an image that another QEMU writes to
# How compressed files begin (each format's own description), and the command that unpacks one of them.
_COMPRESSED = {
    b"\x1f\x8b": "gunzip --keep",
    b"\xfd7zXZ\0": "unxz --keep",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"BZh": "bunzip2 --keep",
    b"PK\3\4": "unzip",
}
_LINE = 200  # characters of what qemu-img says that are repeated


@dataclass(frozen=True)
class DiskInfo:
    """What qemu-img found: the format, the size of the disk in bytes."""

    format: str
    size: int


class _Extent(BaseModel):
    filename: str = ""


class _Details(BaseModel):
    """What some formats have: data in other files."""

    data_file: str | None = Field(default=None, alias="data-file")
    extents: list[_Extent] = []


class _Specific(BaseModel):
    data: _Details = _Details()


class _Info(BaseModel):
    """What we look at in what `qemu-img info --output=json` says (QEMU: ImageInfo, qapi/block-core.json)."""

    filename: str
    format: str
    virtual_size: int = Field(alias="virtual-size", ge=0)
    encrypted: bool = False
    backing: str | None = Field(default=None, alias="backing-filename")
    specific: _Specific = Field(default=_Specific(), alias="format-specific")


def read_info(text: str, file: Path) -> DiskInfo:
    """What qemu-img says about `file`. Pure; raises BadRequestError for an image that we do not take."""
    try:
        info = _Info.model_validate_json(text)
    except ValidationError as error:
        _, _, told = model_errors.first(error)
        raise BadRequestError(f"qemu-img says nothing about {file} that we know: {told}") from error
    convert = f"qemu-img convert -O qcow2 {proc.quote([file])} whole.qcow2"
    whole = f"make it whole first: {proc.hinted(convert, here=True)}"
    if info.backing is not None:
        raise BadRequestError(f"{file} is only what differs from another image, {info.backing}", whole)
    if info.encrypted or info.format == "luks":
        raise BadRequestError(f"{file} is encrypted", "give an image that is not")
    elsewhere = [extent.filename for extent in info.specific.data.extents if extent.filename != info.filename]
    if info.specific.data.data_file is not None:
        elsewhere.append(info.specific.data.data_file)
    if elsewhere:
        raise BadRequestError(f"{file} has its data in another file, {elsewhere[0]}", whole)
    if info.virtual_size == 0:
        raise BadRequestError(f"{file} is an empty disk")
    return DiskInfo(info.format, info.virtual_size)


def check_first_sector(sector: bytes, file: Path, kind: str) -> None:
    """A disk that boots begins with a boot sector, also where it has a GPT; one for a guest's data may begin
    with zeros, because it is empty or because a file system is in it. Pure; raises BadRequestError.

    qemu-img takes a file that it does not know for a raw disk, and what one lacks at its end for zeros.
    """
    if len(sector) < grub.SECTOR or not (sector.endswith(grub.SIGNATURE) or sector == _BLANK):
        if kind == "raw":
            for begin, unpack in _COMPRESSED.items():
                if sector.startswith(begin):
                    raise BadRequestError(
                        f"{file} is compressed", f"unpack it: {unpack} {proc.quote([file])}"
                    )
            raise BadRequestError(
                f"{file} is no disk image: it is of no format that qemu-img knows, and begins with something "
                "else than a partition table",
                "an empty disk can be made: truncate --size=1G data.raw",
            )
        raise BadRequestError(f"the disk in {file} has no partition table", "was the file copied as a whole?")


def check_table(head: bytes, size: int, file: Path) -> None:
    """Raises BadRequestError for a disk of `size` bytes with partitions that it has no room for: a download
    that was cut short. `head` is how it begins. Pure.
    """
    if (wanted := partition_table.disk_size(head)) > size:
        raise BadRequestError(
            f"the disk in {file} is cut off: it has {format_size(size)}, its partition table is made for "
            f"{format_size(wanted)}",
            "was the file copied as a whole?",
        )


def default_name(file: Path) -> str:
    """What an image is called after its file. Raises BadRequestError when that is no name."""
    return checked_name(file.name.partition(".raw")[0] if file.suffix == _SUFFIX else file.stem)


def checked_name(name: str) -> str:
    """Raises BadRequestError unless an imported image can be called so."""
    if not _NAME.fullmatch(name):
        hint = "letters, digits, '.', '_' and '-', at most 63, as in --name debian-cloud"
        raise BadRequestError(f"not a name for an image: {name[:80]!r}", hint)
    if name in recipes.disk_image_names():
        hint = "choose another, as in --name my-image"
        raise BadRequestError(f"{name} is what 'multiroot vm image build {name}' makes", hint)
    return name


def imported() -> dict[str, Path]:
    """The images that there are, by their names."""
    return {path.stem: path for path in sorted(_folder().glob(f"*{_SUFFIX}")) if _NAME.fullmatch(path.stem)}


def locate(name: str) -> Path:
    """The file of an imported image. Raises BadRequestError when there is none."""
    found = imported().get(name)
    if found is None:
        there = ", ".join((*recipes.disk_image_names(), *imported()))
        raise BadRequestError(f"no disk image called {name[:80]!r}", f"there is {there}")
    return found


def find(name: str, cache: Cache) -> Path | None:
    """The file of the image `name`, imported or built; None for one that could be built. Raises
    BadRequestError when there can be none.
    """
    return disk_image.built(name, cache) if name in recipes.disk_image_names() else locate(name)


def inspect(file: Path, cache: Cache) -> DiskInfo:
    """What `file` is. Raises BadRequestError for one that is no image, or none that we take, ConflictError
    for one that a machine writes to.
    """
    sector = _first_sector(file)
    if not sector:
        raise BadRequestError(f"{file} is empty")
    with image_lock.read(file):
        qemu_img = _qemu_img(cache)
        try:
            said = proc.run([*qemu_img, "info", "--output=json", file.absolute()], timeout=_INFO_TIMEOUT_S)
        except CommandError as error:
            line = " ".join(error.stderr.split())[:_LINE] or error.message
            if _LOCKED in error.stderr:
                raise ConflictError(f"{file} is in use: another program writes to it", line) from error
            raise BadRequestError(f"{file} is no disk image", line) from error
        found = read_info(said.stdout, file)
        if found.format == "raw":
            check_first_sector(sector, file, found.format)
        _check(file, found, qemu_img)
        check_table(_head(file, found, qemu_img), found.size, file)
    return found


def _head(file: Path, found: DiskInfo, qemu_img: list[str]) -> bytes:
    """How the disk in an image begins."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "head"
        formats: list[proc.Arg] = ["-f", found.format, "-O", "raw"]
        what = [f"bs={HEAD}", "count=1", f"if={file.absolute()}", f"of={out}"]
        proc.run([*qemu_img, "dd", *formats, *what], timeout=_INFO_TIMEOUT_S)
        return out.read_bytes()


def _first_sector(file: Path) -> bytes:
    try:
        # Looked at before it is opened: a pipe would have us wait.
        if not stat.S_ISREG(file.stat().st_mode):
            raise BadRequestError(f"{file} is not a file but a folder, a device or the like")
        with file.open("rb") as opened:
            return opened.read(grub.SECTOR)
    except FileNotFoundError as error:
        raise BadRequestError(f"no file {file}") from error
    except OSError as error:
        raise BadRequestError(f"cannot read {file}: {error.strerror}") from error


def _check(file: Path, found: DiskInfo, qemu_img: list[str]) -> None:
    """Raises BadRequestError for an image whose tables lead nowhere, as they do where its end is missing."""
    argv: list[proc.Arg] = [*qemu_img, "check", "-f", found.format, file.absolute()]
    done = proc.run(argv, check=False, timeout=_CONVERT_TIMEOUT_S)
    if done.returncode not in _CHECKED:
        lines = (done.stderr or done.stdout).split("\n")
        raise BadRequestError(f"{file} is damaged", " ".join(lines[0].split())[:_LINE])


def bring_in(file: Path, name: str, cache: Cache) -> Path:
    """The image in `file` as a raw disk of ours, called `name`. Raises BadRequestError, ConflictError.

    It is whole, or it is not there.
    """
    target = _folder() / f"{checked_name(name)}{_SUFFIX}"
    if target.exists():
        raise ConflictError(f"there is an image called {name}", f"remove it: multiroot vm image rm {name}")
    found = inspect(file, cache)
    partial = target.with_name(f".{target.name}.partial")
    with image_lock.read(file), cache.phases.phase(PhaseName.CONVERT_IMAGE, format=found.format):
        try:
            proc.run(conversion(file, found, partial, cache), timeout=_CONVERT_TIMEOUT_S)
            check_first_sector(_first_sector(partial), file, found.format)
            paths.give_to_user(partial)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def conversion(file: Path, found: DiskInfo, target: Path, cache: Cache) -> list[proc.Arg]:
    """The command that makes a raw disk of the image in `file`."""
    formats = ["-f", found.format, "-O", "raw"]
    return [*_qemu_img(cache), "convert", *formats, file.absolute(), target]


def remove(name: str) -> None:
    """Remove an imported image. Raises BadRequestError when there is none, ConflictError if it is in use."""
    if name in recipes.disk_image_names():
        hint = "it is in the cache, which may be emptied at any time"
        raise BadRequestError(f"{name} was not imported but is built", hint)
    file = locate(name)
    with image_lock.read(file):
        file.unlink()


@dataclass(frozen=True)
class DiskFacts:
    """What there is to say of an image; sizes in bytes, `used` is what its file takes of the workstation's
    disk. One that could be built has neither sizes nor a path.
    """

    name: str
    kind: str
    size: int | None = None
    used: int | None = None
    path: str | None = None

    @classmethod
    def of(cls, name: str, kind: str, path: Path) -> DiskFacts:
        status = path.stat()
        return cls(name, kind, status.st_size, status.st_blocks * _BLOCK, str(path))


def _folder() -> Path:
    return paths.make_dir(paths.data_dir() / "images")


def _qemu_img(cache: Cache) -> list[str]:
    return roots.loader_argv(disk_image.tools(cache), "bin/qemu-img")
