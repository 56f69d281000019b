# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's seed: what cloud-init will read, and what it could not."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.lab.seed import LONGEST, Seed, make_seed, write_image
from multiroot.units import MIB


def key(kind: str = "ssh-ed25519", comment: str = " me@here") -> str:
    data = len(kind).to_bytes(4, "big") + kind.encode() + b"\0\0\0 " + bytes(32)
    return f"{kind} {base64.b64encode(data).decode()}{comment}"


def meta(seed: Seed) -> dict[str, Any]:
    return dict(yaml.safe_load(seed.meta_data))


def test_a_seed_says_name_and_keys() -> None:
    seed = make_seed("web-1.example", [key() + "\n", key("ssh-rsa", "")])
    said = meta(seed)
    assert said["local-hostname"] == "web-1.example"
    assert said["public-keys"] == [key(), key("ssh-rsa", "")]
    assert seed.user_data.startswith("#cloud-config\n")
    assert sorted(seed.files()) == ["meta-data", "user-data"]


def test_what_says_something_else_is_another_instance() -> None:
    seeds = [
        make_seed("web"),
        make_seed("db"),
        make_seed("web", [key()]),
        make_seed("web", user_data="#cloud-config\nruncmd: [true]\n"),
        make_seed("web", network_config="version: 2\n"),
    ]
    assert len({meta(seed)["instance-id"] for seed in seeds}) == len(seeds)
    assert make_seed("web") == make_seed("web")


def test_user_data_is_kept_as_it_is() -> None:
    text = "#cloud-config\n# mine\npackages: [curl]\n"
    seed = make_seed("web", user_data=text, network_config="version: 2")
    assert seed.files()["user-data"] == text
    assert seed.files()["network-config"] == "version: 2"


@pytest.mark.parametrize("text", ["#!/bin/sh\nx: [", "#include\nx", "## template: jinja\n#cloud-config\n{{"])
def test_what_is_no_yaml_is_not_read_as_such(text: str) -> None:
    assert make_seed("web", user_data=text).user_data == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "#cloud-config\na: [1\nb: 2\n",
            r"user-data is not valid YAML: expected ',' or '\]'.* in line 3: 'b: 2'",
        ),
        (
            "#cloud-config\na:\n\t- b\n",
            r"user-data is not valid YAML: found character '\\t' .* in line 3: '- b'",
        ),
        (
            "#cloud-config\na: *b\n",
            "user-data is not valid YAML: found undefined alias 'b' in line 2: .a: .b.$",
        ),
        ("#cloud-config\na: \x01\n", "user-data is not valid YAML: unacceptable character .* in line 2: "),
        ("#cloud-config\na: 2001-99-99\n", "user-data is not valid YAML: month must be in"),
        ("#cloud-config\na: !!python/name:os.system\n", "user-data is not valid YAML: .* in line 2: "),
        ("#cloud-config\n- a\n", "user-data is no YAML with keys and values"),
        ("#cloud-config\n" + "[" * 5000, "user-data is not valid YAML: it is nested too deeply"),
        ("#cloud-config\n#" + "x" * LONGEST, "user-data has 1048591 bytes, more than 1 MiB"),
        ("a: b\n", "user-data does not say what it is"),
        ("", "user-data does not say what it is"),
    ],
)
def test_user_data_that_cloud_init_could_not_read(text: str, line: str) -> None:
    with pytest.raises(BadRequestError, match=line) as raised:
        make_seed("web", user_data=text)
    assert "\n" not in str(raised.value)


def test_a_network_that_cloud_init_could_not_read() -> None:
    with pytest.raises(BadRequestError, match="network-config is not valid YAML"):
        make_seed("web", network_config="version: [")


@given(st.text() | st.text().map(lambda text: f"#cloud-config\n{text}"))
def test_every_text_is_taken_or_refused_in_one_line(text: str) -> None:
    said = outcome(text)
    assert said is None or len(said.splitlines()) == 1


def outcome(text: str) -> str | None:
    """What is wrong with user-data that is refused."""
    try:
        assert make_seed("web", user_data=text).user_data == text
    except BadRequestError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a_b", "a b", "a..b", "x" * 64, "a\n", "ä", "a." * 127 + "a"]
)
def test_names_that_no_host_has(name: str) -> None:
    with pytest.raises(BadRequestError, match="not a host name"):
        make_seed(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        key().replace("ed25519 ", "rsa "),
        f"{key()}\n{key()}",
    ],
)
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(BadRequestError, match="not a public SSH key"):
        make_seed("web", [text])


def test_a_private_key_is_not_written_down() -> None:
    with pytest.raises(BadRequestError, match="this is a private SSH key") as raised:
        make_seed("web", ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"])
    assert "b3Bl" not in str(raised.value)


def test_a_seeds_disk_is_large_enough_and_as_a_lab_wants_it(tmp_path: Path) -> None:
    for text, size in (("#!/bin/sh\n", 2 * MIB), ("#!/bin/sh\n" + "x" * (LONGEST - 10), 4 * MIB)):
        write_image(make_seed("web", user_data=text), tmp_path / "seed.img")
        content = (tmp_path / "seed.img").read_bytes()
        assert len(content) == size
        assert b"CIDATA" in content[:512]
        assert content[510:512] == b"\x55\xaa"
    assert [path.name for path in tmp_path.iterdir()] == ["seed.img"]
