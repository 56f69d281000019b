# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks an iSCSI target for a disk: is it there, how large is it, what does it begin with.

No more than that: the disk's reader and writer is QEMU. iSCSI is RFC 7143, the SCSI commands are in SPC and
SBC; all numbers are big-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from multiroot import proc
from multiroot.errors import BadRequestError, MultirootError
from multiroot.net import namespace
from multiroot.vm import iscsi_login
from multiroot.vm.iscsi_login import Login
from multiroot.vm.iscsi_target import IscsiTarget
from multiroot.vm.partition_table import SECTOR
from multiroot.vm.served import ANSWER_S, Export, ServerGoneError, Wire

_HEADER = struct.Struct(">BBBBI8sI")  # kind, flags, two of its own, lengths, LUN or login's number, task
_REST = 28  # bytes of a header after that
_LOGIN, _COMMAND = 0x43, 0x01
_LOGIN_ANSWER, _COMMAND_ANSWER, _DATA, _NOP = 0x23, 0x21, 0x25, 0x20
_FINAL, _READS, _SIMPLE, _WITH_STATUS = 0x80, 0x40, 0x01, 0x01
# A login begins with the stage in which both agree on numbers, but for who has a password. Then comes work.
_PROVE, _AGREE, _WORK = 0, 1, 3
_ROUNDS = 8  # of a login
_MOVED, _INITIATORS_FAULT = 1, 2  # classes of a login's status
_NO_LOGIN = 1  # detail of such a status
_FAULTS = {2: "does not let {initiator} in", 3: "is not there"}
_RANDOM = 0x80  # kind of a session's number
_MOST_DATA = 1 << 20  # bytes of one answer; those that we ask for are short
_GOOD, _CHECK_CONDITION, _BUSY, _FULL = 0, 2, 8, 0x28
_ATTENTION = 6
_TRIES = 8  # a target tells first what has happened since somebody was there last
_DISK = 0  # kind of what has a number, and that it is there
_INQUIRY, _CAPACITY, _MODE, _READ = 0x12, 0x9E, 0x1A, 0x88
_CAPACITY_16, _ALL_PAGES = 0x10, 0x3F
_WRITE_PROTECTED = 0x80


def reach(target: IscsiTarget, login: Login | None = None) -> None:
    """Raises ServerGoneError if nobody answers, BadRequestError if that target does not serve the disk."""
    with closing(_Session(target, login)) as session:
        session.check_kind()


def look(target: IscsiTarget, head: int, login: Login | None = None) -> Export:
    """The disk as it is now, with its first `head` bytes, or fewer if it is smaller.

    Raises ServerGoneError if nobody answers, BadRequestError if that target does not serve the disk.
    """
    with closing(_Session(target, login)) as session:
        session.check_kind()
        blocks, block = session.capacity()
        wanted = min(-(-head // block), blocks)
        return Export(blocks * block, session.is_read_only(), session.read(wanted, block)[:head])


@dataclass(frozen=True)
class _Answer:
    """What came from the target: header and data."""

    header: bytes
    data: bytes

    @property
    def kind(self) -> int:
        return self.header[0] & 0x3F

    def number(self, at: int) -> int:
        """The four bytes there."""
        return int.from_bytes(self.header[at : at + 4], "big")


class _Session:
    """With a target that has let us in. It has the name of QEMU's sessions and a number of its own, so that
    none of them ends another.
    """

    def __init__(self, target: IscsiTarget, login: Login | None) -> None:
        self._target = target
        self._login = login
        self._number = bytes([_RANDOM]) + os.urandom(5) + bytes(2)
        self._task = self._command = self._next_status = 0
        self._wire = Wire(lambda: namespace.connect(target.host, target.port, ANSWER_S), self._gone)
        try:
            self._log_in()
        except BaseException:
            self._wire.close()
            raise

    def close(self) -> None:
        self._wire.close()

    def check_kind(self) -> None:
        """Raises BadRequestError unless it is a disk."""
        length = 36
        said = self._ask(struct.pack(">BBBHB", _INQUIRY, 0, 0, length, 0), length)
        if said[:1] != bytes([_DISK]):
            raise BadRequestError(
                f"the target of {self._target} has no disk of that number",
                "what it has: " + proc.hinted(f"iscsi-ls --show-luns iscsi://{self._target.portal}"),
            )

    def capacity(self) -> tuple[int, int]:
        """Blocks, and the bytes of each."""
        length = 32
        said = self._ask(struct.pack(">BBQIBB", _CAPACITY, _CAPACITY_16, 0, length, 0, 0), length)
        last, block = struct.unpack_from(">QI", said.ljust(12, b"\0"))
        if not SECTOR <= block <= _MOST_DATA:
            raise self._gone(f"it says that a block of the disk has {block} bytes")
        return last + 1, block

    def is_read_only(self) -> bool:
        """Whether it says that it can't be written to."""
        length = 0xFF
        try:
            said = self._ask(struct.pack(">BBBBBB", _MODE, 0, _ALL_PAGES, 0, length, 0), length)
        except BadRequestError:  # it need not know that command
            return False
        return bool(said[2:3] >= bytes([_WRITE_PROTECTED]))

    def read(self, blocks: int, block: int) -> bytes:
        """The first ones."""
        length = blocks * block
        said = self._ask(struct.pack(">BBQIBB", _READ, 0, 0, blocks, 0, 0), length)
        if len(said) != length:
            raise self._gone("it sends less than it was asked for")
        return said

    def _ask(self, words: bytes, length: int) -> bytes:
        """What that command reads, `length` bytes or fewer. Raises BadRequestError if the target refuses."""
        for _ in range(_TRIES):
            status, said, sense = self._once(words, length)
            if status == _GOOD:
                return said
            attention = status == _CHECK_CONDITION and len(sense) > 2 and sense[2] & 0xF == _ATTENTION
            if not attention and status not in (_BUSY, _FULL):
                break
        why = f"status {status:#x}, sense {sense[:14].hex() or 'none'}"
        raise BadRequestError(f"{self._target} cannot be read: the target says {why}")

    def _once(self, words: bytes, length: int) -> tuple[int, bytes, bytes]:
        """Status, what was read, and what SCSI calls sense."""
        lun = bytes([0, self._target.lun]).ljust(8, b"\0")
        rest = struct.pack(">III16s", length, self._command, self._next_status, words)
        self._send(_COMMAND, _FINAL | _READS | _SIMPLE, lun, rest)
        self._command += 1
        said = b""
        while True:
            answer = self._receive()
            if answer.kind == _DATA and answer.number(40) == len(said):
                said += answer.data
                if answer.header[1] & _WITH_STATUS:
                    return answer.header[3], said[:length], b""
            elif answer.kind == _COMMAND_ANSWER and not answer.header[2]:
                return answer.header[3], said[:length], answer.data[2:]
            elif answer.kind != _NOP or len(said) > length:
                raise self._gone("what it says is no answer to what it was asked for")

    def _log_in(self) -> None:
        target = self._target
        who = {"InitiatorName": target.initiator, "TargetName": target.target, "SessionType": "Normal"}
        how = {"HeaderDigest": "None", "DataDigest": "None", "ErrorRecoveryLevel": "0"}
        if self._login:
            self._authenticate(self._login, who)
            said = how
        else:
            said = {**who, **how}
        for _ in range(_ROUNDS):
            flags, _said = self._negotiate(_FINAL | _AGREE << 2 | _WORK, said)
            if flags & _FINAL and flags & 3 == _WORK:
                return
            said = {}
        raise self._gone("it does not come to an end with our login")

    def _authenticate(self, login: Login, who: Mapping[str, str]) -> None:
        """The stage before, in which a target may also say that it needs no password."""
        ends = _FINAL | _PROVE << 2 | _AGREE
        flags, said = self._negotiate(ends, {**who, **iscsi_login.OFFER})
        if flags & _FINAL:
            return
        _, said = self._negotiate(_PROVE << 2, iscsi_login.CHOICE)
        try:
            proof = iscsi_login.answer(login, said)
        except ValueError as error:
            raise self._gone(f"it does not ask for a password as RFC 7143 has it: {error}") from error
        flags, _said = self._negotiate(ends, proof)
        if not flags & _FINAL:
            raise self._gone("it does not come to an end with our login")

    def _negotiate(self, flags: int, said: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Say that in the login; what is answered, with its flags. Raises what `_refused` makes."""
        data = b"".join(f"{key}={value}\0".encode() for key, value in said.items())
        self._send(_LOGIN, flags, self._number, struct.pack(">I4xI16x", 0, self._next_status), data)
        answer = self._receive()
        if answer.kind != _LOGIN_ANSWER:
            raise self._gone("who answers there speaks no iSCSI")
        fault, detail = answer.header[36:38]
        if fault:
            raise self._refused(fault, detail)
        self._number = answer.header[8:16]
        keys = (pair.partition("=") for pair in answer.data.decode(errors="replace").split("\0"))
        return answer.header[1], {key: value for key, given, value in keys if given}

    def _refused(self, fault: int, detail: int) -> MultirootError:
        target = self._target
        if fault == _MOVED:
            return BadRequestError(f"the target of {target} is elsewhere", "give the address where it is")
        if fault != _INITIATORS_FAULT:
            return self._gone(f"it has an error of its own ({fault}, {detail})")
        if detail == _NO_LOGIN:
            what = "does not take that user and password" if self._login else "wants a user and a password"
            return BadRequestError(
                f"the target of {target} {what}",
                "put USER:PASSWORD into a file, and add login=FILE to the disk",
            )
        why = _FAULTS.get(detail, f"refuses us (error {detail})").format(initiator=target.initiator)
        hint = f"what that server has: {proc.hinted(f'iscsi-ls iscsi://{target.portal}')}"
        return BadRequestError(f"the target of {target} {why}", hint if detail == 3 else "")

    def _send(self, kind: int, flags: int, of_its_own: bytes, rest: bytes, data: bytes = b"") -> None:
        self._task += 1
        header = _HEADER.pack(kind, flags, 0, 0, len(data), of_its_own, self._task)
        self._wire.send(header + rest + data + bytes(-len(data) % 4))

    def _receive(self) -> _Answer:
        header = self._wire.receive(_HEADER.size + _REST)
        more, length = header[4] * 4, int.from_bytes(header[5:8], "big")
        if length > _MOST_DATA:
            raise self._gone("who answers there speaks no iSCSI")
        data = self._wire.receive(more + length + -length % 4)[more : more + length]
        answer = _Answer(header, data)
        self._next_status = answer.number(24) + 1
        return answer

    def _gone(self, why: str) -> ServerGoneError:
        return ServerGoneError(
            f"the server of the disk {self._target} does not answer: {why}",
            "is it there? " + proc.hinted(f"iscsi-ls iscsi://{self._target.portal}"),
        )
