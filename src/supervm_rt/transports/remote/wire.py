"""Between the messages of ``proto/plugin_host.proto`` and what the runtime speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeAlias

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt.model.chain import Step
from supervm_rt.model.manifest import Resources
from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto
from supervm_rt.transports.remote.transport import Admission

REVISION = 1
"""Of proto/plugin_host.proto."""
NO_ROUTE = -5
"""As supervm/status.h has it."""
MOST_IN_BATCH = 8_192
_STEP_OF = {proto.Step.NEW: Step.NEW, proto.Step.UNDO: Step.UNDO, proto.Step.FINAL: Step.FINAL}

RegisterRequest, RegisterResponse = proto.RegisterRequest, proto.RegisterResponse
HeartbeatRequest, HeartbeatResponse = proto.HeartbeatRequest, proto.HeartbeatResponse
StreamBlocksRequest: TypeAlias = proto.StreamBlocksRequest
SubmitTxRequest, SubmitTxResponse = proto.SubmitTxRequest, proto.SubmitTxResponse
HealthRequest, HealthResponse = proto.HealthRequest, proto.HealthResponse
IrForm = proto.IrForm
BlockMessage = proto.BlockMessage


@cache
def descriptors() -> bytes:
    """A FileDescriptorSet of all of it, for reflection."""
    return resources.files("supervm_rt.transports.remote.messages_generated").joinpath("descriptors.binpb").read_bytes()


# ---- registration ----------------------------------------------------------------------------------------------------------


def refusal(why: str) -> proto.RegisterResponse:
    """The answer to a plugin that is not let in."""
    return proto.RegisterResponse(accepted=False, message=why, revision=REVISION)


def admission(admitted: Admission) -> proto.RegisterResponse:
    """The answer to one that is."""
    return proto.RegisterResponse(
        plugin_id=admitted.plugin,
        accepted=True,
        message="registered",
        session_token=admitted.token,
        generation=admitted.generation,
        configuration_json=admitted.configuration.decode(),
        position=admitted.position or b"",
        credit_bytes=admitted.window,
        heartbeat_ms=round(admitted.heartbeat * 1000),
        capabilities=sorted(map(str, admitted.capabilities)),
        resources=_resources(admitted.resources),
        max_message_bytes=admitted.largest,
        revision=REVISION,
    )


def _resources(assigned: Resources) -> proto.Resources | None:
    if assigned == Resources():
        return None
    return proto.Resources(
        cpu_millis=round((assigned.cpu or 0) * 1000), memory_bytes=assigned.memory or 0, storage_bytes=assigned.storage or 0
    )


def heartbeat(seconds: float) -> proto.HeartbeatResponse:
    """When the next one is due."""
    return proto.HeartbeatResponse(next_ms=round(seconds * 1000))


# ---- what the host says on an exchange -------------------------------------------------------------------------------------


def not_routed(number: int, error: str) -> proto.SubmitTxResponse:
    """The answer to a transaction that goes no further than the host."""
    return proto.SubmitTxResponse(accepted=False, error=error, id=number, status=NO_ROUTE)


def submitted(answer: proto.SubmitTxResponse) -> bytes:
    """The same on an exchange."""
    return bytes(proto.BlockMessage(submitted=answer))


def acknowledge(position: bytes) -> bytes:
    """What is durable."""
    return bytes(proto.BlockMessage(acknowledge=proto.Acknowledge(position=position)))


def credit(size: int) -> bytes:
    """What may be sent besides."""
    return bytes(proto.BlockMessage(credit=proto.Credit(bytes=size)))


def stop(reason: str) -> bytes:
    """The end of the plugin's life."""
    return bytes(proto.BlockMessage(stop=proto.Stop(reason=reason)))


# ---- the feed --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscriber asks for."""

    chains: tuple[str, ...]
    cursor: str | None
    start: str | int
    since: float
    """Seconds since the epoch."""
    steps: frozenset[Step]
    raw: bool
    ir: proto.IrForm
    follow: bool
    batch: int


def stream_request(request: proto.StreamBlocksRequest) -> Wanted:
    """Raises GRPCError for what cannot be asked for."""
    if request.max_batch > MOST_IN_BATCH:
        raise GRPCError(
            Status.INVALID_ARGUMENT, f"max_batch is {request.max_batch}; at most {MOST_IN_BATCH} events go into a message"
        )
    if not 0 <= request.nanos < 1_000_000_000:
        raise GRPCError(Status.INVALID_ARGUMENT, f"nanos is {request.nanos}; it is a part of a second")
    try:
        steps = frozenset(_STEP_OF[proto.Step(step)] for step in request.steps) or frozenset({Step.NEW})
        form = proto.IrForm(request.ir)
    except (KeyError, ValueError) as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"an unknown step or form of the IR ({error})") from None
    if form not in {proto.IrForm.NONE, proto.IrForm.JSON, proto.IrForm.MESSAGE}:
        raise GRPCError(Status.INVALID_ARGUMENT, f"ir is {request.ir}; this version knows no such form of the IR")
    cursor = request.cursor or None
    start: str | int = "beginning"
    since = 0.0
    if cursor is None and request.only_new:
        start = "now"
    elif cursor is None and request.from_height is not None:
        start = request.from_height
    elif cursor is None:
        since = request.seconds + request.nanos / 1e9
    return Wanted(
        chains=tuple(request.chains),
        cursor=cursor,
        start=start,
        since=since,
        steps=steps,
        raw=not request.without_blocks,
        ir=form,
        follow=not request.once,
        batch=request.max_batch,
    )
