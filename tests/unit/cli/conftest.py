# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands in this process, against an agent that says what the test tells it to."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from multiroot.cli.main import main
from multiroot.errors import MultirootError
from multiroot.plan.memory import Way
from multiroot.plan.planner import Plan, PlannedCpu
from multiroot.ranges import Range
from multiroot.rpc.server import ROOT_KEY
from multiroot.rpc.status import encode
from multiroot.rpc.v1 import coordinator_pb2, memory_pb2, root_pb2, vm_pb2, watch_pb2
from multiroot.units import GIB, KIB, MIB

SERVICES = (coordinator_pb2, memory_pb2, root_pb2, vm_pb2, watch_pb2)

# What an agent answers to Plan.
PLAN = Plan(
    cpus=(PlannedCpu(2, 2), PlannedCpu(3, 3)),
    carve=Range(4 * GIB, 512 * MIB),
    way=Way.RESERVED,
    blocks=(),
    low=Range(128 * KIB, 128 * KIB),
    pmem=(Range(8 * GIB, GIB),),
)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`run("vm", "list")` is the command as a user calls it, through main()."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["multiroot", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)


@dataclass
class FakeAgent(grpc.GenericRpcHandler):
    """Answers the calls of all services. `calls` has (method, root that was named, request) in order."""

    calls: list[tuple[str, str | None, Any]] = field(default_factory=list)
    _answers: dict[tuple[str, str | None], list[Any]] = field(default_factory=dict)

    def answer(self, method: str, *answers: Any, root: str | None = None) -> None:
        """What `method` returns, or streams, when it is called for `root`; or the error it fails with."""
        self._answers[method, root] = list(answers)

    def service(self, handler_call_details: Any) -> Any:
        service, _, name = handler_call_details.method.rpartition("/")
        method = next(
            module.DESCRIPTOR.services_by_name[simple].methods_by_name[name]
            for module in SERVICES
            if (simple := service.rpartition(".")[2]) in module.DESCRIPTOR.services_by_name
        )
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(
            self._body(method),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=_on_the_wire,
        )

    def _body(self, method: MethodDescriptor) -> Callable[[Any, Any], Any]:
        def take(request: Any, context: Any) -> Iterator[Any]:
            root = dict(context.invocation_metadata()).get(ROOT_KEY)
            self.calls.append((method.name, root, request))
            for answer in self._answers[method.name, root]:
                if isinstance(answer, MultirootError):
                    code, trailing = encode(answer)
                    context.set_trailing_metadata(trailing)
                    context.abort(code, answer.message)
                yield answer

        def stream(request: Any, context: Any) -> Iterator[Any]:
            yield from take(request, context)

        def unary(request: Any, context: Any) -> Any:
            return next(take(request, context))

        return stream if method.server_streaming else unary

    def requests(self, method: str) -> list[Any]:
        return [request for name, _, request in self.calls if name == method]


def _on_the_wire(answer: Any) -> bytes:
    """A message, or bytes as they are: an agent can also send what is no message."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgent]:
    """The agent that commands find."""
    fake = FakeAgent()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[fake])
    server.add_insecure_port(f"unix:{tmp_path}/agent")
    server.start()
    monkeypatch.setenv("MULTIROOT_AGENT", f"unix:{tmp_path}/agent")
    yield fake
    server.stop(None).wait()
