# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that answers anything that the wire can carry, and strategies for what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from agent.messages import TEXT, like
from anything import json_with, spoiled
from cli.conftest import PLAN, SERVICES, FakeAgent
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from multiroot import errors
from multiroot.rpc.status import ERROR_KEY
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, root_pb2, vm_pb2

METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for module in SERVICES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True)
class Refusal:
    """A status, and what stands where our own errors would be."""

    code: grpc.StatusCode
    details: str = ""
    record: bytes | None = None


# Bytes are sent as they are, whatever they are.
Answer = Message | bytes | Refusal


@dataclass(frozen=True)
class Answers:
    """What each method answers. A stream has all of them in order; another call gets the next one, at the end
    the last one again. A method that is not named answers with an empty message, or an empty stream.
    """

    by_method: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """As it is written in an example."""
        return f"Answers({dict(self.by_method)!r})"


class HostileAgent(FakeAgent):
    """Says what `answers` has, and forgets what it was asked when these are set."""

    _given: Mapping[str, tuple[Answer, ...]]

    def says(self, answers: Answers) -> None:
        self.calls.clear()
        self._given = answers.by_method

    def _body(self, method: MethodDescriptor) -> Callable[[Any, Any], Any]:
        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.calls.append((method.name, None, request))
            return (_said(answer, context) for answer in self._given.get(method.name, ()))

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            before = len(self.requests(method.name))
            self.calls.append((method.name, None, request))
            answers = self._given.get(method.name) or (GetMessageClass(method.output_type)(),)
            return _said(answers[min(before, len(answers) - 1)], context)

        return stream if method.server_streaming else unary


def _said(answer: Answer, context: grpc.ServicerContext) -> Any:
    if isinstance(answer, Refusal):
        if answer.record is not None:
            context.set_trailing_metadata(((ERROR_KEY, answer.record),))
        context.abort(answer.code, answer.details)
    return answer


def answers_of(methods: Iterable[str]) -> st.SearchStrategy[Answers]:
    """Anything that these methods can answer."""
    return st.fixed_dictionaries({name: _answers_of(METHODS[name]) for name in methods}).map(Answers)


def _answers_of(method: MethodDescriptor) -> st.SearchStrategy[tuple[Answer, ...]]:
    message = like(method.output_type, _GOOD.get(method.name))
    if method.name == "Plan":
        message |= _PLANS
    if method.output_type.name == "Progress":
        message |= st.sampled_from([coordinator_pb2.Progress(phase=PHASE), RESULTS[method.name]])
    one = st.one_of(*[message] * 6, _REFUSALS, st.binary(max_size=20))
    return st.lists(one, min_size=0 if method.server_streaming else 1, max_size=4).map(tuple)


# fmt: off
PHASE = common_pb2.Phase(name="carve", side="old root", duration_ns=5, ok=True)
_VM = vm_pb2.Vm(
    definition=vm_pb2.VmDefinition(name="vm0", ram_bytes=1 << 28, cpus=1), state="running", owner=1, epoch=1
)
RESULTS: dict[str, coordinator_pb2.Progress] = {
    "Launch": coordinator_pb2.Progress(launched=coordinator_pb2.LaunchResult(root=2, ready_ns=5)),
    "Release": coordinator_pb2.Progress(released=coordinator_pb2.ReleaseResult(cpus="2-3")),
    "AbortUpdate": coordinator_pb2.Progress(released=coordinator_pb2.ReleaseResult(cpus="2-3")),
    "Handoff": coordinator_pb2.Progress(handed_off=coordinator_pb2.HandoffResult(name="vm0", resumed_ns=9)),
    "PrepareHandoff": coordinator_pb2.Progress(prepared=coordinator_pb2.PrepareHandoffResult(names=["vm0"])),
    "Update": coordinator_pb2.Progress(updated=coordinator_pb2.UpdateResult(state="retiring", retiring=True)),
    "Resume": coordinator_pb2.Progress(updated=coordinator_pb2.UpdateResult(state="retiring", retiring=True)),
}
# Near these, commands get further than with what is nowhere right.
_GOOD: dict[str, Message] = {
    "GetStatus": root_pb2.RootStatus(root=1, peers=[root_pb2.PeerStatus(root=2, state="ready")]),
    "GetState": coordinator_pb2.CoordinatorState(
        root=2, state="idle", taking_over="done", phases=[PHASE],
        crash=coordinator_pb2.Crash(traces=["CPU 0"]),
    ),
    "List": vm_pb2.ListVmsResponse(vms=[_VM]),
    "Get": _VM,
    "Run": _VM,
}
# fmt: on
_PLANS = st.one_of(
    json_with("cpus", "carve").map(json.dumps),
    spoiled(json.loads(PLAN.to_json())).map(json.dumps),
    st.sampled_from(("{", "[" * 3000, "[" * 900 + "]" * 900, '{"a": ' + "9" * 5000 + "}", '{"a": 1e999}')),
).map(lambda text: coordinator_pb2.PlanResponse(plan_json=text))

_CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
# Not a BugError: an agent that has one is to say so.
_KINDS = [name for name, kind in vars(errors).items() if isinstance(kind, type) and name != "BugError"]
_RECORDS = (
    st.none()
    | st.binary(max_size=20)
    | json_with("kind", "message", "hint").map(lambda data: json.dumps(data).encode())
    | st.fixed_dictionaries(
        {"kind": st.sampled_from(_KINDS) | TEXT, "message": st.text(max_size=9), "hint": TEXT}
    ).map(lambda data: json.dumps(data).encode())
)
_REFUSALS = st.builds(Refusal, st.sampled_from(_CODES), TEXT, _RECORDS)
