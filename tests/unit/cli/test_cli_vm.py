# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm run --file` and `vm show --toml`: what is asked of the agent, and what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from cli.conftest import FakeAgent, Run
from click.shell_completion import ShellComplete

from multiroot.cli import reference
from multiroot.cli.program import cli
from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import MIB
from multiroot.vm.definition import Card, VmDefinition
from multiroot.vm.disk import Disk
from multiroot.vm.fields import options
from multiroot.vm.messages import definition_from_proto, definition_to_proto

Write = Callable[[str], Path]
Asked = Callable[..., VmDefinition]

FULL = """\
name = "web"
ram_bytes = "512M"
cpus = 2
cpu = "base,lm=on"
machine = "q35,hpet=on"
guest = "ticker-card"
append = 'a="\u00e9"'
cards = [{ mac = "52:54:00:00:00:07", address = "10.77.1.7/16", queues = 2 }, { mac = "52:54:00:00:00:08" }]
firmware = "direct"
disks = [{ source = "pmem:0x1c0000000", bus = "virtio-scsi" }]
boot_order = []
functions = ["01:00.0"]
kernel = "sha256:{0}"
initrd = "sha256:{0}"
watchdog = "reset"
user_data = "#!/bin/true"
""".replace("{0}", "5" * 64)
SAME = (
    "--memory", "512M", "--cpus", "2", "--cpu", "base,lm=on", "--machine", "q35,hpet=on",
    "--firmware", "direct", "--guest", "ticker-card",
    "--append", 'a="\u00e9"', "--mac", "52:54:00:00:00:07", "--address", "10.77.1.7/16",
    "--queues", "2", "--card", "mac=52:54:00:00:00:08",
    "--device", "01:00.0", "--disk", "pmem:0x1c0000000,bus=virtio-scsi",
    "--boot-order", "", "--watchdog", "reset",
    "--kernel", f"sha256:{'5' * 64}", "--initrd", f"sha256:{'5' * 64}",
)  # fmt: skip
SMALL = 'name = "web"\ncpus = 2\n'


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "web.toml"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture
def asked(run: Run, agent: FakeAgent, file: Write) -> Asked:
    """The definition that `vm run` sends."""
    agent.answer("Run", vm_pb2.Vm(definition=vm_pb2.VmDefinition(name="web"), owner=1, epoch=1))

    def call(*words: object) -> VmDefinition:
        done = run("vm", "run", *words)
        assert (done.code, done.err) == (0, "")
        return definition_from_proto(agent.requests("Run")[-1].definition)

    return call


def test_a_file_and_options_ask_for_the_same(run: Run, agent: FakeAgent, file: Write, tmp_path: Path) -> None:
    agent.answer("Run", vm_pb2.Vm(definition=vm_pb2.VmDefinition(name="web"), owner=1, epoch=1))
    (tmp_path / "user-data").write_text("#!/bin/true")
    same = (*SAME, "--user-data", str(tmp_path / "user-data"))
    # A field that is added belongs into both.
    assert set(tomllib.loads(FULL)) == {field.name for field in fields(VmDefinition)}
    assert set(same[::2]) == {option.flag for option in options(VmDefinition)}
    named = ("web", *same)
    for text, words in ((FULL, ()), (FULL, ("web",)), (SMALL, same), (None, named)):
        given = ("--file", file(text)) if text else ()
        assert run("vm", "run", *given, *words).out == "web runs in root 1, epoch 1\n"
    first, *others = [request.SerializeToString(deterministic=True) for request in agent.requests("Run")]
    assert others == [first] * 3
    assert agent.requests("Run")[0].definition.functions == ["01:00.0"]


@pytest.mark.parametrize(
    ("words", "definition"),
    [
        ((), VmDefinition("web", cpus=2)),
        (("db",), VmDefinition("db", cpus=2)),
        (("--cpus", "1"), VmDefinition("web")),
        (("--memory", "64M"), VmDefinition("web", 64 * MIB, 2)),
        (("--address", "10.77.1.1/16"), VmDefinition("web", cpus=2, cards=(Card(address="10.77.1.1/16"),))),
        (("--append", ""), VmDefinition("web", cpus=2)),
    ],
)
def test_the_command_line_wins(
    asked: Asked, file: Write, words: tuple[str, ...], definition: VmDefinition
) -> None:
    assert asked("--file", file(SMALL), *words) == definition


def test_an_option_takes_away_what_a_file_gives(asked: Asked, file: Write) -> None:
    path = file(FULL)
    assert asked("--file", path).functions == ("01:00.0",)
    assert asked("--file", path, "--device", "").functions == ()
    assert asked("--file", path, "--address", "").cards[0] == Card("52:54:00:00:00:07", queues=2)
    assert asked("--file", path, "--card", "").cards[1:] == (Card(),)


def test_the_help_says_who_wins(run: Run) -> None:
    help_text = " ".join(run("vm", "run", "--help").out.split())
    assert "NAME and options that are given win over it." in help_text
    assert "`multiroot vm show NAME --toml`" in help_text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cpus = 2\n", "web.toml: name: it is missing\n"),
        (
            SMALL + "cpus = 2\n",
            "web.toml is not valid TOML: Cannot overwrite a value in line 3: 'cpus = 2'\n",
        ),
        (SMALL + "memory = 1\n", "web.toml: memory: no such key (there are: name, ram_bytes, "),
        (SMALL + '"a\\nb\\u001b" = 1\n', "web.toml: a b\\x1b: no such key"),
        (SMALL + "append = 1\n", "web.toml: append: a text is needed, not a whole number\n"),
        (SMALL + 'ram_bytes = "33M"\n', "web.toml: 33 MiB is not a multiple of 2 MiB"),
    ],
)
def test_a_wrong_file_is_one_line_and_nothing_is_asked(
    run: Run, agent: FakeAgent, file: Write, text: str, says: str
) -> None:
    path = file(text)
    done = run("vm", "run", "--file", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"multiroot: {path.parent}/{says}")
    assert done.err.count("\n") == 1
    assert agent.calls == []


def test_no_file_and_no_name(run: Run, agent: FakeAgent, tmp_path: Path) -> None:
    absent = run("vm", "run", "--file", tmp_path / "absent").err
    assert absent.startswith(f"multiroot: no file {tmp_path}/absent (make one of a VM that there is: ")
    folder = run("vm", "run", "--file", tmp_path)
    assert (folder.code, folder.err) == (2, f"multiroot: cannot read {tmp_path}: Is a directory\n")
    nameless = run("vm", "run")
    assert nameless.code == 2
    assert "NAME is missing. Or give a file that has one: --file FILE (`" in nameless.err
    assert agent.calls == []


def shown(agent: FakeAgent, *, known: bool = True) -> VmDefinition:
    definition = VmDefinition("web", cpus=2, append='a="\u00e9\u4e16"', functions=("01:00.0",)).checked()
    message = definition_to_proto(definition) if known else vm_pb2.VmDefinition(name="web", ram_bytes=MIB)
    vm = vm_pb2.Vm(definition=message, state="running" if known else "unreachable", owner=2, epoch=1)
    agent.answer("Get", vm)
    agent.answer("Get", vm, root="new")
    return definition


@pytest.mark.parametrize("root", [None, "new"])
def test_what_is_shown_gives_the_same_vm(
    run: Run, agent: FakeAgent, asked: Asked, file: Write, root: str | None
) -> None:
    definition = shown(agent)
    done = run("vm", "show", "web", "--toml", *(("--root", root) if root else ()))
    assert (done.code, done.err) == (0, "")
    assert [name for _, name, _ in agent.calls] == [root]
    assert asked("--file", file(done.out)) == definition


def test_a_person_is_shown_readable_sizes_and_no_guest_that_does_not_start(
    run: Run, agent: FakeAgent
) -> None:
    disk = Disk("pmem:0x1c0000000")
    definition = VmDefinition("web", ram_bytes=512 * MIB, firmware="seabios", disks=(disk,)).checked()
    agent.answer("Get", vm_pb2.Vm(definition=definition_to_proto(definition), state="stopped"))
    words = [line.split() for line in run("vm", "show", "web").out.splitlines()]
    assert ["ram_bytes", "512", "MiB"] in words
    assert ["guest", "-"] in words
    data = json.loads(run("vm", "show", "web", "--json").out)
    assert (data["ram_bytes"], data["guest"]) == (512 * MIB, "ticker")


def test_a_file_is_utf8_whatever_the_terminal_has(agent: FakeAgent) -> None:
    shown(agent)
    words = [sys.executable, "-m", "multiroot.cli.main", "vm", "show", "web", "--toml"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=env, capture_output=True, check=True)
    assert 'append = "a=\\"\u00e9\u4e16\\""\n' in done.stdout.decode()


def test_what_nobody_knows_is_not_shown_as_a_file(run: Run, agent: FakeAgent) -> None:
    shown(agent, known=False)
    assert json.loads(run("vm", "show", "web", "--json").out)["cpus"] is None
    done = run("vm", "show", "web", "--toml")
    assert (done.code, done.out) == (5, "")
    assert done.err == (
        "multiroot: web is unreachable: nobody who answers knows its definition "
        "(what is known of it: multiroot vm show web)\n"
    )


def test_an_error_of_the_agent_stays_what_it_is(run: Run, agent: FakeAgent) -> None:
    agent.answer("Get", BadRequestError("no VM named 'web'", "multiroot vm list"))
    done = run("vm", "show", "web", "--toml")
    assert (done.code, done.out, done.err) == (2, "", "multiroot: no VM named 'web' (multiroot vm list)\n")


def test_toml_and_json_exclude_each_other(run: Run, agent: FakeAgent) -> None:
    done = run("vm", "show", "web", "--toml", "--json")
    assert (done.code, done.out) == (2, "")
    assert "--json and --toml exclude each other" in done.err
    assert agent.calls == []


@pytest.mark.parametrize("words", [("--file",), ("web", "--file"), ("--cpus", "2", "--file")])
def test_file_names_are_completed(words: tuple[str, ...]) -> None:
    complete = ShellComplete(cli, {}, "multiroot", "_MULTIROOT_COMPLETE")
    (item,) = complete.get_completions(["vm", "run", *words], "we")
    assert (item.type, item.value) == ("file", "we")


def test_the_reference_has_both() -> None:
    page = reference.FILE.read_text()
    assert "- `--file FILE`: Take the VM from this TOML file. NAME and options that are given win" in page
    assert "    multiroot vm run [OPTIONS] [NAME]\n" in page
    assert "- `--toml`: Print a file for `vm run --file` that gives the same VM." in page


@pytest.mark.parametrize(("cpus", "hint"), [("0", "1 to 255"), ("-1", "1 to 255"), ("256", "1 to 255")])
def test_a_number_of_cpus_that_no_vm_has_is_refused_before_an_agent_is_asked(
    run: Run, agent: FakeAgent, cpus: str, hint: str
) -> None:
    """0 would be taken for nothing said."""
    done = run("vm", "run", "web", "--cpus", cpus)
    assert (done.code, done.err) == (2, f"multiroot: a VM cannot have {cpus} CPUs ({hint})\n")
    assert agent.calls == []


def test_the_canary_is_in_a_list_of_all_only(run: Run, agent: FakeAgent) -> None:
    vms = [vm_pb2.Vm(definition=vm_pb2.VmDefinition(name=name)) for name in ("multiroot-canary", "web")]
    agent.answer("List", vm_pb2.ListVmsResponse(vms=vms))
    assert [vm["name"] for vm in json.loads(run("vm", "list", "--json").out)] == ["web"]
    assert "canary" not in run("vm", "list").out
    assert "multiroot-canary" in run("vm", "list", "--all").out
