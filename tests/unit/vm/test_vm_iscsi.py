# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of iSCSI targets: how they are written, what a target is asked for, what QEMU is told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iscsi_server import TARGET
from iscsi_server import IscsiServer as FakeServer
from vm.conftest import SMALL, SetFaults, qmp_of
from vm.test_vm_kept_files import name_of, send

from multiroot.cli.vm_files import by_checksum
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.units import MIB
from multiroot.vm import disk_servers, iscsi, iscsi_login, iscsi_target, sources
from multiroot.vm.definition import DIRECT, VmDefinition
from multiroot.vm.disk import Disk, parse_disks, write_disk
from multiroot.vm.host import Host
from multiroot.vm.iscsi_login import Login
from multiroot.vm.iscsi_target import INITIATOR, IscsiTarget
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.manager import VmManager
from multiroot.vm.qemu import refusals
from multiroot.vm.qemu.disks import disk_words
from multiroot.vm.served import Export, ServerGoneError

NAMES = st.one_of(
    st.from_regex(r"iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.-]{1,20}(:[a-z0-9._:-]{1,20})?", fullmatch=True).filter(
        lambda name: name[12] not in ".-"
    ),
    st.from_regex(r"eui\.[0-9a-f]{16}", fullmatch=True),
    st.from_regex(r"naa\.([0-9a-f]{16}){1,2}", fullmatch=True),
)
TARGETS = st.builds(
    IscsiTarget,
    st.ip_addresses().map(str),
    st.integers(1, 65535),
    NAMES,
    st.integers(0, 255),
    NAMES,
)
CONTENT = b"QFI\xfb".ljust(8 * MIB, b"\0")


def at(server: FakeServer, **changes: object) -> IscsiTarget:
    return replace(IscsiTarget("127.0.0.1", server.port, TARGET, 1), **changes)


@given(TARGETS)
def test_a_target_that_is_written_is_read_as_the_same(target: IscsiTarget) -> None:
    disk = Disk(str(target), initiator=target.initiator).checked()
    assert disk.server == target
    assert disk.source == str(target)
    assert parse_disks([write_disk(disk)]) == (disk,) == (disk.checked(),)


@given(st.text(max_size=60), st.text(alphabet="iscqneua:/.0123456789-@%[]", max_size=60))
def test_any_text_is_a_target_or_refused(text: str, name: str) -> None:
    for source in (
        f"iscsi://{text}",
        f"iscsi:{name}",
        f"iscsi://10.0.0.1/{text}/1",
        f"iscsi://10.0.0.1/{name}",
    ):
        try:
            checked = Disk(source, initiator=name).checked()
        except BadRequestError:
            continue
        assert isinstance(checked.server, IscsiTarget)
        assert checked.checked() == checked


def test_equal_targets_are_written_equally() -> None:
    name = "iscsi://10.0.0.1:3260/iqn.2026-11.org.example:a/1"
    for source in (name, "iscsi://10.0.0.1/iqn.2026-11.org.Example:A/1", f"{name[:-1]}001"):
        assert Disk(source).checked().source == name
    assert (
        Disk("iscsi://[fd00:0::1]/eui.0123456789abcdef/0")
        .checked()
        .source.startswith("iscsi://[fd00::1]:3260/")
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"iscsi://server/{TARGET}/1", "not a disk of an iSCSI target: .* with the target's IP address"),
        (f"iscsi://10.0.0.1/{TARGET}", "not a disk of an iSCSI target"),
        (f"iscsi://10.0.0.1/{TARGET}/256", "not a disk of an iSCSI target"),
        (f"iscsi://10.0.0.1:0/{TARGET}/1", "not a disk of an iSCSI target"),
        (f"iscsi://10.0.0.1:70000/{TARGET}/1", "not a disk of an iSCSI target"),
        (f"iscsi://10.0.0.256/{TARGET}/1", "not a disk of an iSCSI target"),
        ("iscsi://10.0.0.1/disk/1", "not a disk of an iSCSI target"),
        (f"iscsi:10.0.0.1:3260/{TARGET}/1", "not a disk of an iSCSI target"),
        (f"iscsi://10.0.0.1/{TARGET}{'a' * 200}/1", "not a disk of an iSCSI target"),
        (f"iscsi://joe%secret@10.0.0.1/{TARGET}/1", "a user and a password in a disk's name would be seen"),
        (f"iscsi://10.0.0.1/{TARGET}/1,initiator=joe", "not a name of an iSCSI initiator: 'joe'"),
        (
            "nbd://10.0.0.1/d,initiator=iqn.2026-11.org.example:vm",
            "no iSCSI target's, which has an initiator",
        ),
    ],
)
def test_what_is_no_target_is_named(text: str, words: str) -> None:
    with pytest.raises(BadRequestError, match=words) as refused:
        [disk.checked() for disk in parse_disks([text])]
    assert "secret" not in str(refused.value)


def test_a_target_is_asked_for_its_disk() -> None:
    with closing(FakeServer(CONTENT)) as server:
        assert iscsi.look(at(server), 4096) == Export(8 * MIB, read_only=False, head=CONTENT[:4096])
        named = at(server, initiator="iqn.2026-11.org.example:vm")
        sources.reach(named)
        assert server.initiators == [INITIATOR, named.initiator]
        # Else the target would take one for the other that has come again, and end that one.
        assert len(server.numbers) == 2
    with closing(FakeServer(bytes(1024), read_only=True)) as small:
        assert iscsi.look(at(small), 4096) == Export(1024, read_only=True, head=bytes(1024))


def test_a_target_is_shown_a_password_but_never_told_it() -> None:
    joe, wrong = Login("joe", "a secret word"), Login("joe", "another word")
    with closing(FakeServer(CONTENT, users={"joe": "a secret word"})) as server:
        sources.reach(at(server), joe)
        assert iscsi.look(at(server), 512, joe).head == CONTENT[:512]
        for login, says in ((None, "wants a user and a password"), (wrong, "does not take that user and")):
            with pytest.raises(BadRequestError, match=says) as refused:
                sources.reach(at(server), login)
            assert "login=FILE" in refused.value.hint
        assert b"joe" in server.heard
        assert b"secret" not in server.heard
    assert "secret" not in repr(joe)


@given(st.binary(max_size=60))
def test_any_file_is_a_login_or_refused(content: bytes) -> None:
    with suppress(BadRequestError):
        login = iscsi_login.parse(content)
        assert content.decode().splitlines() == [f"{login.user}:{login.password}"]


def test_a_file_that_is_no_login_is_not_told() -> None:
    with pytest.raises(BadRequestError, match="no user and password") as refused:
        iscsi_login.parse(b"my secret\nin two lines")
    assert "secret" not in str(refused.value)
    assert "USER:PASSWORD" in refused.value.hint


def test_a_login_goes_to_the_machine_by_its_checksum(tmp_path: Path) -> None:
    file = tmp_path / "disk.login"
    disk = Disk(f"iscsi://10.0.0.1/{TARGET}/1", login=str(file)).checked()
    wanted = VmDefinition("vm0", disks=(disk, replace(disk, source="nbd:10.0.0.1:1/d", login="")))
    with pytest.raises(BadRequestError, match=f"cannot read {file}"):
        by_checksum(wanted)
    file.write_text("a secret word")
    with pytest.raises(BadRequestError, match=f"{file}: this is no user and password") as refused:
        by_checksum(wanted)
    assert "secret" not in str(refused.value)
    file.write_text("joe:a secret word\n")
    made, files = by_checksum(wanted)
    assert files == {made.disks[0].login: file}
    assert made.disks[0].login == name_of(file.read_bytes())
    assert made.disks[1] == wanted.disks[1]
    assert by_checksum(made) == (made, {})


def test_what_chap_answers() -> None:
    # As RFC 1994 has it: the MD5 sum of number, password and challenge.
    login = Login("joe", "secret")
    proof = hashlib.md5(b"\x17secret\x01\x02").hexdigest()
    for challenge in ("0x0102", "0X0102", "0bAQI="):
        said = {"CHAP_A": "5", "CHAP_I": "23", "CHAP_C": challenge}
        assert iscsi_login.answer(login, said) == {"CHAP_N": "joe", "CHAP_R": f"0x{proof}"}


@given(st.dictionaries(st.sampled_from(["CHAP_A", "CHAP_I", "CHAP_C"]), st.text(max_size=12)))
def test_a_challenge_that_is_none_is_refused(said: dict[str, str]) -> None:
    with suppress(ValueError):
        assert len(iscsi_login.answer(Login("joe", "secret"), {"CHAP_A": "5", **said})["CHAP_R"]) == 34


async def test_a_password_is_in_a_file_of_the_vms_folder_and_nowhere_else(
    host: Host, manager: VmManager
) -> None:
    """Proves that neither QEMU's command line nor the record nor the home of the VM has it, and that it goes
    with the VM."""
    life = Lifecycle(manager)
    with closing(FakeServer(bytes(MIB), users={"joe": "a secret word"})) as server:
        disk = Disk(str(at(server)), login=send(host.files, b"joe:a secret word\n"))
        vm = await life.run(replace(SMALL, disks=(disk,)))
        assert vm.vmm.process
        words = Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_text().split("\0")
        assert "secret word" not in " ".join(words)
        (backend,) = (json.loads(word) for word in words if '"iscsi"' in word)
        assert (backend["user"], backend["password-secret"]) == ("joe", "disk0-password")
        file = vm.folder.path / "disk0.password"
        assert f"secret,id=disk0-password,file={file}" in words
        assert (file.read_text(), file.stat().st_mode & 0o777) == ("a secret word", 0o600)
        others = [path for path in vm.folder.path.iterdir() if path.is_file() and path != file]
        assert others
        assert not any(b"secret word" in path.read_bytes() for path in others)
        home = manager.homes.read("vm0")
        assert home
        assert "secret word" not in repr(home)
        await life.remove("vm0", force=True)
    assert not file.exists()
    assert host.arena.entries() == []


@pytest.mark.parametrize(
    ("login", "words"),
    [
        ((2, 3), r"is not there .*iscsi-ls iscsi://127"),
        ((2, 2), f"does not let {INITIATOR} in"),
        ((2, 1), "wants a user and a password"),
        ((2, 9), r"refuses us \(error 9\)"),
        ((1, 1), "is elsewhere"),
        ((3, 1), "has an error of its own"),
    ],
)
def test_a_login_that_is_refused(login: tuple[int, int], words: str) -> None:
    with closing(FakeServer(CONTENT, login=login)) as server, pytest.raises(MultirootError, match=words):
        iscsi.reach(at(server))


def test_a_target_without_that_disk() -> None:
    none = pytest.raises(BadRequestError, match=r"has no disk of that number .*iscsi-ls --show-luns")
    with closing(FakeServer(CONTENT)) as server, none:
        iscsi.look(at(server, lun=2), 4096)
    with pytest.raises(ServerGoneError, match="does not answer: Connection refused"):
        iscsi.reach(at(server))


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 ".ljust(48), b"\x23\x87\0\0\0\xff\xff\xff" + bytes(40), b"N"]
)
def test_what_is_no_target(greeting: bytes) -> None:
    refused = pytest.raises(ServerGoneError, match=r"speaks no iSCSI|closed the connection|Connection reset")
    with closing(FakeServer(b"", greeting=greeting)) as other, refused:
        iscsi.look(at(other), 512)


def test_one_that_is_not_connected_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it answers: until QEMU is connected again the guest would wait, in a handoff, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = IscsiTarget("127.0.0.1", listener.getsockname()[1], TARGET, 1)
        assert disk_servers.missing(os.getpid(), {here}) == {here}
        with socket.create_connection(listener.getsockname()):
            assert disk_servers.missing(os.getpid(), {here}) == set()


def test_what_qemu_is_told_of_a_target() -> None:
    (disk,) = parse_disks([f"iscsi://[::1]/{TARGET}/7,initiator=iqn.2026-11.org.example:vm,format=qcow2"])
    backend = json.loads(disk_words(0, disk.checked(), None, started_by=DIRECT)[1])["file"]
    assert backend["driver"] == "iscsi"
    assert (backend["portal"], backend["target"], backend["lun"]) == ("[::1]:3260", TARGET, 7)
    assert backend["initiator-name"] == "iqn.2026-11.org.example:vm"
    for bus in ("virtio-blk", "virtio-scsi"):
        *_, front = disk_words(0, replace(disk.checked(), bus=bus), None, started_by=DIRECT)
        assert front.endswith(",werror=stop,rerror=stop")
    # QEMU gives up a request after that; without it, never.
    assert "timeout" not in backend


async def test_what_is_wrong_with_a_targets_disk_changes_nothing(host: Host) -> None:
    manager = VmManager(host)
    wanted = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny")
    with closing(FakeServer(CONTENT)) as server:
        source = f"iscsi://127.0.0.1:{server.port}/{TARGET}/"
        for text, words in (
            (f"{source}2", "has no disk of that number"),
            (f"{source}1", "is said to be raw, and there is qcow2 in it"),
        ):
            with pytest.raises(BadRequestError, match=words):
                await manager.run(replace(wanted, disks=parse_disks([text])))
    with pytest.raises(ServerGoneError, match="does not answer"):
        await manager.run(replace(wanted, disks=parse_disks([f"{source}1"])))
    assert host.arena.entries() == []


async def test_a_guest_whose_disk_refuses_something_stands_still_until_that_is_done(
    host: Host, set_faults: SetFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, however often it is tried; and nobody hands the VM over meanwhile."""
    monkeypatch.setattr(refusals, "AGAIN_S", 0.01)
    set_faults("io-error:query-balloon=3")
    manager = VmManager(host)
    with closing(FakeServer(bytes(MIB))) as server:
        source = str(at(server))
        vm = await manager.run(VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", disks=(Disk(source),)))
    monkeypatch.setattr(disk_servers, "missing", lambda pid, servers: set())
    await qmp_of(vm).execute("query-balloon")
    async with asyncio.timeout(30):
        while not vm.waits_for:
            await asyncio.sleep(0.001)
        assert vm.waits_for == (source,)
        with pytest.raises(ConflictError, match=f"vm0 waits for the server of its disk {source}"):
            await vm.check_servers()
        while vm.waits_for:
            await asyncio.sleep(0.01)
    assert [notice.what for notice in vm.notices if notice.what.startswith("disk0")] == [
        "disk0: a write failed: Operation not supported; the guest stands still",
        "disk0 does what the guest wants again; the guest goes on",
    ]
    assert (await qmp_of(vm).execute("query-status"))["running"]
    await manager.stop("vm0")


async def test_one_that_is_paused_meanwhile_stays_so(
    host: Host, set_faults: SetFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "AGAIN_S", 0.01)
    set_faults("io-error:query-balloon=0")
    manager = VmManager(host)
    with closing(FakeServer(bytes(MIB))) as server:
        disks = (Disk(str(at(server))),)
        vm = await manager.run(VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", disks=disks))
    await vm.set_paused(True)
    await qmp_of(vm).execute("query-balloon")
    await asyncio.sleep(0.1)
    assert not (await qmp_of(vm).execute("query-status"))["running"]
    assert vm.waits_for == (disks[0].source,)
    await vm.set_paused(False)
    async with asyncio.timeout(30):
        while vm.vmm.refusing:
            await asyncio.sleep(0.01)
    await manager.stop("vm0")


async def test_who_ends_lets_go_of_its_disks_and_that_is_not_told(
    host: Host, set_faults: SetFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_faults("")
    manager = VmManager(host)
    with closing(FakeServer(bytes(MIB))) as server:
        disks = (Disk(str(at(server))),)
        vm = await manager.run(VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", disks=disks))
    away = set(filter(None, [disks[0].server]))

    def missing(pid: int, servers: object) -> set[object]:
        """While it is looked, QEMU says that it ends."""
        qmp_of(vm).shutdown_reason = "guest-shutdown"
        return set(away)

    monkeypatch.setattr(disk_servers, "missing", missing)
    await vm.check_servers()
    assert vm.waits_for == ()
    assert vm.notices == ()
    await manager.stop("vm0")


def test_names_have_an_end() -> None:
    assert iscsi_target.parse(f"iscsi://10.0.0.1/iqn.2026-11.org.example:{'a' * 199}/1")
    assert not iscsi_target.parse(f"iscsi://10.0.0.1/iqn.2026-11.org.example:{'a' * 200}/1")
