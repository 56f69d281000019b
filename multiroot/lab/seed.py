# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is told at its first boot: cloud-init's NoCloud seed, a small disk labelled CIDATA.

The seed's format: cloud-init's documentation, "NoCloud". YAML is read by PyYAML, which cloud-init uses too,
so what is refused here would not have worked there. cloud-init itself goes on when it cannot read its
configuration, says so in a log of its own, and then nobody can log in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from multiroot.errors import BadRequestError
from multiroot.lab.lab_disks import UNIT
from multiroot.ranges import align_up
from multiroot.toml_files import line_of
from multiroot.units import MIB, format_size
from multiroot.vm import fat
from multiroot.vm.seed import CLOUD_CONFIG, LABEL, check_beginning

LONGEST = MIB  # bytes of one text; what is larger does not belong into a seed
_ROOM = MIB  # bytes of the file system beside the texts

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)  # of a host name, RFC 1123
_LONGEST_NAME = 253
_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: [^\n]*)?")


@dataclass(frozen=True)
class Seed:
    """The texts of a seed; without a `network_config` the guest asks for addresses by DHCP."""

    meta_data: str
    user_data: str
    network_config: str | None = None

    def files(self) -> dict[str, str]:
        """The texts by the names that cloud-init looks for."""
        named = {"meta-data": self.meta_data, "user-data": self.user_data}
        return named if self.network_config is None else {**named, "network-config": self.network_config}


def make_seed(
    hostname: str, keys: Sequence[str] = (), user_data: str | None = None, network_config: str | None = None
) -> Seed:
    """The seed of a guest with this name; `keys` are public SSH keys that its user may log in with.

    A seed that says something else has another instance id, so the guest takes it for a first boot. Pure;
    raises BadRequestError for what cloud-init could not read.
    """
    user = f"{CLOUD_CONFIG}\n{{}}\n" if user_data is None else checked_user_data(user_data)
    if network_config is not None:
        check_network_config(network_config)
    meta: dict[str, Any] = {
        "local-hostname": _checked_hostname(hostname),
        "public-keys": [checked_key(key) for key in keys],
    }
    state = hashlib.sha256(repr((meta, user, network_config)).encode())
    meta = {"instance-id": f"seed-{state.hexdigest()[:16]}", **meta}
    return Seed(yaml.safe_dump(meta, sort_keys=False, width=LONGEST), user, network_config)


def write_image(seed: Seed, out: Path) -> None:
    """Make the disk as a new file `out`, which is there when all of it is."""
    files = {name: text.encode() for name, text in seed.files().items()}
    size = align_up(sum(map(len, files.values())) + _ROOM, UNIT)
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
        made = Path(file.name)
        file.write(fat.image(LABEL, files, size))
    made.chmod(0o644)
    made.replace(out)


def _checked_hostname(name: str) -> str:
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(each) for each in name.split(".")):
        hint = "letters, digits and '-' inside, as in web-1 or web-1.example"
        raise BadRequestError(f"not a host name: {name[:80]!r}", hint)
    return name


def checked_key(text: str) -> str:
    """One line of an authorized_keys file without options, or of a .pub file. Raises BadRequestError."""
    key = text.strip()
    if "PRIVATE KEY" in key:
        raise BadRequestError("this is a private SSH key", "give the public one, the file that ends in .pub")
    match = _KEY.fullmatch(key)
    if not match or not _names_itself(*match.groups()):
        hint = "it is the one line of a file like ~/.ssh/id_ed25519.pub"
        raise BadRequestError(f"not a public SSH key: {key[:40]!r}", hint)
    return key


def _names_itself(kind: str, encoded: str) -> bool:
    """A key begins with its type, behind that one's length in 32 bits (RFC 4253, 6.6)."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    return data.startswith(len(kind).to_bytes(4, "big") + kind.encode())


def checked_user_data(text: str) -> str:
    """Raises BadRequestError for what cloud-init could not read."""
    check_beginning(text)
    if text.startswith(CLOUD_CONFIG):
        _read_yaml("user-data", text)
    else:
        _check_size("user-data", text)
    return text


def check_network_config(text: str) -> None:
    """Raises BadRequestError for what cloud-init could not read."""
    _read_yaml("network-config", text)


def _read_yaml(what: str, text: str) -> None:
    """Raises BadRequestError unless this is YAML with keys and values, or none at all."""
    _check_size(what, text)
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in {line_of(text, mark.line + 1)}" if mark else ""
        raise BadRequestError(f"{what} is not valid YAML: {error.problem or error.context}{where}") from error
    except ReaderError as error:
        where = line_of(text, text.count("\n", 0, error.position) + 1)
        raise BadRequestError(f"{what} is not valid YAML: {_first_line(error)} in {where}") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that is none
        raise BadRequestError(f"{what} is not valid YAML: {_first_line(error)}") from error
    except RecursionError as error:
        raise BadRequestError(f"{what} is not valid YAML: it is nested too deeply") from error
    if found is not None and not isinstance(found, dict):
        raise BadRequestError(f"{what} is no YAML with keys and values", "write it like `hostname: web`")


def _check_size(what: str, text: str) -> None:
    size = len(text.encode())
    if size > LONGEST:
        raise BadRequestError(f"{what} has {size} bytes, more than {format_size(LONGEST)}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
