# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors cross the wire whole, calls that name another root reach it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multiroot import errors
from multiroot.errors import BadRequestError, BugError, ConflictError, MultirootError, PeerLostError
from multiroot.rpc.client import connect
from multiroot.rpc.server import listen_locally, make_server, names_root, parse_root_name
from multiroot.rpc.status import ERROR_KEY, WORDLESS, decode, translated
from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

ERRORS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MultirootError)
]


class FakeRoot(root_pb2_grpc.RootServiceServicer):
    def __init__(self, release: str, error: Exception | None = None) -> None:
        self.release, self.error = release, error

    async def GetStatus(self, request, context):
        if self.error:
            raise self.error
        # Whoever answers knows whether it was meant by name, also when the call was passed on.
        return root_pb2.RootStatus(
            kernel_release=self.release, cpus="named" if names_root(context) else "any"
        )


async def serve(path: Path, root: FakeRoot, name: str, peers: dict[str, grpc.aio.Channel]) -> grpc.aio.Server:
    def channel_to(wanted: str) -> grpc.aio.Channel:
        parse_root_name(wanted)
        if wanted not in peers:
            raise PeerLostError(f"there is no {wanted} root")
        return peers[wanted]

    server = make_server(lambda wanted: wanted == name, channel_to)
    root_pb2_grpc.add_RootServiceServicer_to_server(root, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


def status(target: str, root: str | None = None) -> root_pb2.RootStatus:
    with connect(target, root=root) as channel, translated("the agent"):
        return root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_errors_arrive_as_they_were_raised(tmp_path: Path, kind: type[MultirootError]) -> None:
    server = await serve(
        tmp_path / "s", FakeRoot("a", kind("CPU 0 is the boot CPU — no", "take 2-3")), "old", {}
    )
    try:
        with pytest.raises(MultirootError) as caught:
            await asyncio.to_thread(status, f"unix:{tmp_path}/s")
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.hint) == ("CPU 0 is the boot CPU — no", "take 2-3")
    finally:
        await server.stop(None)


async def test_a_call_that_names_the_other_root_reaches_it_and_its_errors_come_back(tmp_path: Path) -> None:
    new_root = FakeRoot("new kernel")
    new = await serve(tmp_path / "new", new_root, "new", {})
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/new") as channel:
        old = await serve(tmp_path / "old", FakeRoot("old kernel"), "old", {"new": channel})
        target = f"unix:{tmp_path}/old"
        try:
            assert (await asyncio.to_thread(status, target)).kernel_release == "old kernel"
            assert (await asyncio.to_thread(status, target, "old")).kernel_release == "old kernel"
            assert (await asyncio.to_thread(status, target, "new")).kernel_release == "new kernel"
            assert (await asyncio.to_thread(status, target)).cpus == "any"
            assert (await asyncio.to_thread(status, target, "old")).cpus == "named"
            assert (await asyncio.to_thread(status, target, "new")).cpus == "named"
            with pytest.raises(PeerLostError, match="no 7 root"):
                await asyncio.to_thread(status, target, "7")
            with pytest.raises(BadRequestError, match="not a root"):
                await asyncio.to_thread(status, target, "newest")
            new_root.error = ConflictError("busy", "wait")
            with pytest.raises(ConflictError, match="busy"):
                await asyncio.to_thread(status, target, "new")
        finally:
            await old.stop(None)
            await new.stop(None)


async def test_an_agent_that_is_gone_is_a_lost_peer(tmp_path: Path) -> None:
    with pytest.raises(PeerLostError, match="the agent does not answer"):
        await asyncio.to_thread(status, f"unix:{tmp_path}/nobody")


async def test_the_local_socket_is_its_owners_alone_from_the_moment_it_is_there(tmp_path: Path) -> None:
    socket, modes = tmp_path / "run" / "agent.sock", []

    class Server:
        """Looks at the socket as soon as it is made, as a stranger would who waits for it."""

        def add_insecure_port(self, address: str) -> int:
            port: int = real.add_insecure_port(address)
            modes.append(stat.S_IMODE(socket.stat().st_mode))
            return port

    real = make_server(lambda _: True, lambda _: cast(Any, None))
    before = os.umask(0)
    try:
        listen_locally(cast(Any, Server()), socket)
        assert os.umask(0) == 0, "the process has its umask back"
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    await real.stop(None)


async def test_what_nobody_expected_is_told_the_caller_and_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = FakeRoot("a", KeyError("x"))
    server = await serve(tmp_path / "s", root, "old", {})
    try:
        with pytest.raises(BugError, match=r"this is a bug in the agent: KeyError: 'x' \(its log has the"):
            await asyncio.to_thread(status, f"unix:{tmp_path}/s")
        assert "Traceback" in caplog.text
        root.error = None
        assert (await asyncio.to_thread(status, f"unix:{tmp_path}/s")).kernel_release == "a"
    finally:
        await server.stop(None)


async def test_a_call_that_failed_elsewhere_is_not_a_bug_here(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/nobody") as channel:
        stub = root_pb2_grpc.RootServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetStatus(root_pb2.GetStatusRequest(), timeout=10)
    server = await serve(tmp_path / "s", FakeRoot("a", caught.value), "old", {})
    try:
        with pytest.raises(PeerLostError, match="the other root's agent does not answer"):
            await asyncio.to_thread(status, f"unix:{tmp_path}/s")
    finally:
        await server.stop(None)


class Failed(grpc.RpcError):
    """A failed call that carries `value` as its error."""

    def __init__(self, value: bytes) -> None:
        super().__init__()
        self.value = value

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((ERROR_KEY, self.value),)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.ABORTED

    def details(self) -> str:
        return "said so"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(dir(errors)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.fixed_dictionaries({}, optional={"kind": JSON, "message": JSON, "hint": JSON})


@example(value=b'{"kind":null,"hint":"","message":""}')
@example(value=b'{"kind":null,"hint":"","message":" \\n"}')
@given(st.binary() | (RECORDS | JSON).map(lambda value: json.dumps(value).encode()))
def test_whatever_a_broken_agent_sends_is_an_error_of_ours(value: bytes) -> None:
    error = decode(Failed(value), "the agent")
    assert isinstance(error, MultirootError)
    assert str(error)


@pytest.mark.parametrize("text", ["x" * 100_000, "\u20ac" * 100_000, "\0\n\x1b", "a\udcffb", ""])
async def test_any_message_arrives(tmp_path: Path, text: str) -> None:
    server = await serve(tmp_path / "s", FakeRoot("a", BadRequestError(text, text)), "old", {})
    try:
        with pytest.raises(BadRequestError) as caught:
            await asyncio.to_thread(status, f"unix:{tmp_path}/s")
        assert text.startswith(caught.value.message) or caught.value.message in ("a\\udcffb", WORDLESS)
    finally:
        await server.stop(None)


@given(st.text() | st.text("0123456789\u0663", min_size=1))
def test_any_text_is_a_root_or_refused(name: str) -> None:
    try:
        root = parse_root_name(name)
    except BadRequestError:
        return
    assert root in ("old", "new") or 0 < int(root) < 100000


def test_a_number_with_thousands_of_digits_is_no_root() -> None:
    with pytest.raises(BadRequestError, match="not a root"):
        parse_root_name("9" * 5000)
