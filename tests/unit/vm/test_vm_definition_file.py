# SPDX-License-Identifier: GPL-2.0-or-later
"""A file defines a VM or is refused in one line; what is written is read as it was meant."""

from __future__ import annotations

import textwrap
import tomllib
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from anything import json_with, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.rpc import border
from multiroot.units import MIB
from multiroot.vm.definition import WATCHDOG_ACTIONS, Card, VmDefinition
from multiroot.vm.definition_file import read, write
from multiroot.vm.disk import Disk, name_of
from multiroot.vm.fields import from_file, options, to_file

TOP = Path(__file__).parents[3]

NAMES = st.from_regex(border.VM_NAME, fullmatch=True)
BYTES = st.integers(0, 255).map(lambda byte: f"{byte:02x}")
LETTERS = st.characters().filter(str.isprintable) | st.sampled_from("\"'\\# =\u00e9\u4e16\U0001f600")


@st.composite
def definitions(draw: st.DrawFn) -> VmDefinition:
    """Any VM that a root would run."""
    kind = draw(st.sampled_from(["q35", "microvm"]))
    option = st.from_regex(r"x[a-z0-9_-]{0,9}=[A-Za-z0-9._-]{1,9}", fullmatch=True)
    more = draw(st.lists(option, max_size=3, unique_by=lambda each: each.partition("=")[0]))
    mac = draw(st.just("") | st.tuples(*[BYTES] * 5).map(lambda rest: ":".join(("52", *rest))))
    address = draw(st.just("") | st.ip_addresses(v=4, network="10.77.1.0/24").map(lambda ip: f"{ip}/16"))
    functions = draw(st.sampled_from([(), ("01:00.0",)])) if kind == "q35" else ()
    disk = st.builds(
        Disk,
        st.integers(1, (1 << 52) - 1).map(name_of),
        st.sampled_from(["virtio-blk", "virtio-scsi"]),
        st.booleans(),
    )
    lines = st.text(LETTERS | st.sampled_from("\n\t"), max_size=200)
    user_data = st.just("") | lines.map(lambda text: f"#cloud-config\n{text}")
    disks = draw(st.lists(disk, max_size=3, unique_by=lambda each: each.source))
    kernel = draw(st.just("") | st.text(LETTERS, min_size=1, max_size=99))
    values: dict[str, Any] = {
        "name": draw(NAMES),
        "ram_bytes": draw(st.integers(16, 1 << 20)) * 2 * MIB,
        "cpus": draw(st.integers(1, 255)),
        "cpu": draw(st.sampled_from(["host", "EPYC,svm=off", "base,lm=on,model-id=A B @ 2.5+"])),
        "machine": ",".join((kind, *more)),
        "guest": draw(NAMES),
        "kernel": kernel,
        "initrd": draw(st.just("") | st.text(LETTERS, max_size=99)) if kernel else "",
        "append": draw(st.text(LETTERS, max_size=border.PATH_MOST)),
        "firmware": "direct",
        "disks": tuple(disks) if kind == "q35" else (),
        "boot_order": (),
        "cards": (Card(mac, address),),
        "functions": functions,
        "watchdog": draw(st.sampled_from(["", *WATCHDOG_ACTIONS])) if kind == "q35" else "",
        "user_data": draw(user_data) if kind == "q35" else "",
    }
    assert set(values) == {field.name for field in fields(VmDefinition)}
    definition = VmDefinition(**values)
    return definition.checked() if draw(st.booleans()) else definition


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(definitions())
def test_what_is_written_is_read(tmp_path: Path, definition: VmDefinition) -> None:
    path = tmp_path / "vm.toml"
    text = write(definition)
    path.write_bytes(text.encode())
    assert read(path) == definition
    assert read(path, definition.name) == definition
    assert set(tomllib.loads(text)) == {field.name for field in fields(definition)}


def test_what_is_printed() -> None:
    user_data = '#cloud-config\nhostname: "web"\n'
    definition = VmDefinition(
        "web", 256 * MIB, append='a="\u00e9\\"', functions=("01:00.0",), user_data=user_data
    ).checked()
    assert write(definition) == (
        'name = "web"\n'
        'ram_bytes = "256 MiB"\n'
        "cpus = 1\n"
        'cpu = "frozen"\n'
        'machine = "q35"\n'
        'firmware = "direct"\n'
        'guest = "ticker"\n'
        'kernel = ""\n'
        'initrd = ""\n'
        'append = "a=\\"\u00e9\\\\\\""\n'
        "cards = [\n"
        f'    {{ mac = "{definition.card.mac}", address = "", queues = 1 }},\n'
        "]\n"
        "disks = []\n"
        "boot_order = []\n"
        "functions = [\n"
        '    "01:00.0",\n'
        "]\n"
        'watchdog = ""\n'
        'user_data = "#cloud-config\\nhostname: \\"web\\"\\n"\n'
    )


def test_what_no_file_may_hold_is_not_written() -> None:
    with pytest.raises(BadRequestError, match="not printable"):
        write(VmDefinition("web", append="a\nb"))


@given(definitions())
def test_a_number_is_written_as_its_option_takes_it(definition: VmDefinition) -> None:
    (memory,) = (option for option in options(VmDefinition) if option.flag == "--memory")
    assert memory.parse(memory.write(definition.ram_bytes)) == definition.ram_bytes


def made(tmp_path: Path, text: str, name: str | None = None) -> VmDefinition:
    path = tmp_path / "vm.toml"
    path.write_bytes(text.encode())
    return read(path, name)


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    assert made(tmp_path, 'name = "web"\n') == VmDefinition("web")
    assert made(tmp_path, "", "web") == VmDefinition("web")
    assert made(tmp_path, 'name = "web"\n[[cards]]\n') == VmDefinition("web")
    assert made(tmp_path, 'name = "web"\nram_bytes = 33554432\n') == VmDefinition("web", 32 * MIB)
    assert made(tmp_path, 'name = "web"\nram_bytes = "32M"\n') == VmDefinition("web", 32 * MIB)


def test_another_name_wins(tmp_path: Path) -> None:
    web = VmDefinition("web").checked()
    assert made(tmp_path, write(web), "db").checked() == VmDefinition("db").checked()
    fixed = replace(web, cards=(Card("52:54:00:00:00:07"),))
    assert made(tmp_path, write(fixed), "db") == replace(fixed, name="db")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name: it is missing"),
        ('name = "web"\ncolour = 1\n', "colour: no such key"),
        ('name = "web"\n[[cards]]\n[[cards]]\nadress = ""\n', "cards.1.adress: no such key"),
        ("name = 1\n", "name: a text is needed, not a whole number"),
        ('name = "web"\nname = "db"\n', "Cannot overwrite a value in line 2: 'name = \"db\"'"),
        ('name = "web"\ncpus = "2"\n', "cpus: a whole number is needed, not a text"),
        ('name = "web"\ncpus = true\n', "cpus: a whole number is needed, not true or false"),
        ('name = "web"\ncpus = 2.0\n', "cpus: a whole number is needed, not a fraction"),
        ('name = "web"\ncpus = 2026-01-01\n', "cpus: a whole number is needed, not a date"),
        ('name = "web"\nram_bytes = "lots"\n', "ram_bytes: not a size: 'lots'"),
        ('name = "web"\nram_bytes = ""\n', "ram_bytes: not a size: ''"),
        ('name = "web"\nram_bytes = 1.5\n', "ram_bytes: a whole number is needed, not a fraction"),
        ('name = "web"\nram_bytes = ["1G"]\n', "ram_bytes: a whole number is needed, not a list"),
        ('name = "web"\nfunctions = "01:00.0"\n', "functions: a list is needed, not a text"),
        ('name = "web"\nfunctions = [1]\n', "functions.0: a text is needed, not a whole number"),
        ('name = "web"\n[cards]\nmac = ""\n', "cards: a list is needed, not a table"),
        ('name = "web"\ncards = ["x"]\n', "cards.0: a table is needed, not a text"),
        ('name = "web"\n[[cards]]\nmac = 5\n', "cards.0.mac: a text is needed, not a whole number"),
        ('name = "web"\n[[cards]]\nqueues = 9\n', "a card of web cannot have 9 queues"),
        ('name = "web"\ncpus = 0\n', "a VM cannot have 0 CPUs"),
        ('name = "web"\nuser_data = "a: b"\n', "user-data does not say what it is"),
        ('name = "Web"\n', "not a name for a VM: 'Web'"),
        ('name = "web"\nram_bytes = "33M"\n', "33 MiB is not a multiple of 2 MiB"),
        (f'name = "web"\nram_bytes = {1 << 70}\n', "ram bytes cannot be"),
        (f'name = "web"\nram_bytes = {1 << 60}\n', "VmDefinition.ram_bytes can't be"),
        ('name = "web"\nappend = "a\\nb"\n', "not printable"),
        (f'name = "web"\nappend = "{"x" * 5000}"\n', "VmDefinition.append can't be"),
        (f'name = "web"\nmachine = "{"x" * 5000}"\n', "no machine called 'xxx"),
        (f'name = "web"\n{"x" * 5000} = 1\n', "xxx..."),
        ('"" = 1\n', '"": no such key'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadRequestError) as error:
        made(tmp_path, text)
    assert error.value.message.startswith(f"{tmp_path / 'vm.toml'}")
    assert says in error.value.message
    assert len(error.value.message) < 300 + len(str(tmp_path))


def test_a_key_that_is_not_known_says_which_are(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError) as error:
        made(tmp_path, "memory = 1\n")
    assert error.value.hint == f"there are: {', '.join(field.name for field in fields(VmDefinition))}"


def test_a_wrong_name_is_not_the_files_fault(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"^not a name for a VM: 'Web'"):
        made(tmp_path, 'name = "web"\n', "Web")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=f"^no file {tmp_path}/absent"):
        read(tmp_path / "absent")
    with pytest.raises(BadRequestError, match="Is a directory"):
        read(tmp_path)


GOOD: dict[str, Any] = to_file(VmDefinition("web", functions=("01:00.0",)).checked())


@given(spoiled(GOOD) | json_with(*GOOD))
def test_any_tables_define_a_vm_or_are_refused(data: Any) -> None:
    with suppress(BadRequestError):
        definition = from_file(data, VmDefinition).checked()
        assert from_file(to_file(definition), VmDefinition) == definition


def test_the_example_of_the_readme_is_one(tmp_path: Path) -> None:
    behind = (TOP / "README.md").read_text().partition("--file web.toml")[2]
    example = textwrap.dedent(behind.split("\n\n")[1])
    address = (Card(address="10.77.1.1/16"),)
    assert made(tmp_path, example) == VmDefinition("web", 256 * MIB, cards=address)
