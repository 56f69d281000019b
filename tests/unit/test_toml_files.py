# SPDX-License-Identifier: GPL-2.0-or-later
"""A TOML file is read, or refused in one line that names it and what is wrong in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from anything import made_or_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot import toml_files
from multiroot.errors import BadRequestError

PIECES = (b"a = ", b'"', b"[", b"{", b"\n", b"\r", b"a.b", b"1", b"\xff", b"\xef\xbb\xbf", b"[x]\n", b"'''")


@pytest.mark.parametrize("data", [b"", b"a = 1\r\n", "# \u00fc\na = 1\n".encode()])
def test_a_file_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    assert toml_files.read(path) == ({"a": 1} if data else {})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a = 1\nb = 2\na = 3\nc = 4\n", " is not valid TOML: Cannot overwrite a value in line 3: 'a = 3'"),
        (b"a = 1\na = 2", " is not valid TOML: Cannot overwrite a value in line 2: 'a = 2'"),
        (b"[a]\n[a]\n", " is not valid TOML: Cannot declare ('a',) twice in line 2: '[a]'"),
        (b"a = {b = 1, b = 2}\n", " in line 1: 'a = {b = 1, b = 2}'"),
        (b"\n\na = \n", " is not valid TOML: Invalid value in line 3: 'a ='"),
        (b"a = [", " is not valid TOML: Invalid value in line 1: 'a = ['"),
        (b"a = 1\nb\n", " in line 2: 'b'"),
        (b"\xef\xbb\xbfa = 1\n", " is not valid TOML: Invalid statement in line 1: '\\ufeffa = 1'"),
        (b"a = " + b"9" * 5000, " is not valid TOML: Exceeds the limit (4300 digits)"),
        (b"a = " + b"[" * 100_000, " is not valid TOML: it is nested too deeply"),
        (b"a = 1\nb = '\xff'\n", " is not UTF-8: line 2 has the byte 0xff"),
        (b"#" * (toml_files.LONGEST + 1), " is larger than 1 MiB"),
        (b"a" * 100_000, " in line 1: '" + "a" * 200 + "...'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(BadRequestError) as error:
        toml_files.read(path)
    assert error.value.message.startswith(f"{path} is ")
    assert says in error.value.message
    assert len(error.value.message) < 600 + len(str(path))


def test_the_largest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * toml_files.LONGEST)
    assert toml_files.read(path) == {}


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=f"cannot read {tmp_path}: Is a directory"):
        toml_files.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        toml_files.read(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(BadRequestError, match="file/x: Not a directory"):
        toml_files.read(tmp_path / "file" / "x")


def test_a_pipe_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a = 1\n")
    os.close(writer)
    assert toml_files.read(Path(f"/dev/fd/{reader}")) == {"a": 1}
    os.close(reader)
    with pytest.raises(BadRequestError, match="/dev/zero is larger"):
        toml_files.read(Path("/dev/zero"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=8).map(b"".join))
def test_any_file_is_read_or_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    made = made_or_refused(lambda: toml_files.read(path))
    assert isinstance(made, dict) or made.message.startswith(f"{path} is not ")
