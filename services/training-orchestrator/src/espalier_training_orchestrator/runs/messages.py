"""Entities of runs as messages, and the spec as the document that is stored."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict

from espalier.training_orchestrator.v1 import run_pb2
from espalier_common.rpc.timestamps import timestamp
from espalier_training_orchestrator.runs.models import Attempt, Checkpoint, Run, RunEvent, RunState, Step
from espalier_training_orchestrator.telemetry.models import MetricPoint
from espalier_training_orchestrator.wire import enum_name, enum_value, number

MAX_ETA_SECONDS = 1e9


def spec_document(spec: run_pb2.RunSpec) -> dict[str, Any]:
    """The spec as it is stored: the contract's own JSON form, defaults written out, under the proto's field names."""
    return MessageToDict(spec, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def run_to_proto(run: Run) -> run_pb2.Run:
    """The message of a run."""
    message = run_pb2.Run(
        id=run.id,
        name=run.name,
        spec=_spec(run.document),
        state=enum_value(run_pb2.RunState, "RUN_STATE", run.state),
        reason=run.reason,
        message=run.message,
        progress=_progress(run),
        attempt=run.attempt,
        owner_id=run.owner_id,
        create_time=timestamp(run.created_at),
        start_time=timestamp(run.started_at),
        end_time=timestamp(run.ended_at),
        resumable=run.resumable,
    )
    for name, value in run.summary.items():
        message.summary[name] = number(value)
    return message


def state_filter(value: int) -> RunState | None:
    """The state that a list is limited to; None when unspecified."""
    name = enum_name(run_pb2.RunState, "RUN_STATE", value)
    return RunState(name) if name else None


def step_of(progress: run_pb2.Progress) -> Step:
    """How far a runner says that its attempt is."""
    return Step(
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=progress.epoch,
        loss=progress.loss if progress.step else None,
        tokens_per_second=progress.tokens_per_second,
        eta_seconds=progress.eta.ToTimedelta().total_seconds() if progress.HasField("eta") else None,
    )


def attempt_to_proto(attempt: Attempt) -> run_pb2.Attempt:
    """The message of an attempt."""
    return run_pb2.Attempt(
        number=attempt.number,
        state=enum_value(run_pb2.RunState, "RUN_STATE", attempt.state),
        reason=attempt.reason,
        message=attempt.message,
        exit_code=attempt.exit_code,
        resumed_from_step=attempt.resumed_from_step,
        last_step=attempt.last_step,
        log_tail=attempt.log_tail,
        create_time=timestamp(attempt.created_at),
        end_time=timestamp(attempt.ended_at),
    )


def checkpoint_to_proto(checkpoint: Checkpoint) -> run_pb2.Checkpoint:
    """The message of a checkpoint."""
    return run_pb2.Checkpoint(
        step=checkpoint.step,
        attempt=checkpoint.attempt,
        uri=checkpoint.uri,
        manifest_sha256=checkpoint.manifest_sha256,
        size_bytes=checkpoint.size_bytes,
        create_time=timestamp(checkpoint.created_at),
    )


def event_to_proto(event: RunEvent) -> run_pb2.RunEvent:
    """The message of a line of the timeline."""
    return run_pb2.RunEvent(
        time=timestamp(event.at),
        attempt=event.attempt,
        reason=event.reason,
        message=event.message,
        actor_id=event.actor_id,
    )


def point_to_proto(point: MetricPoint) -> run_pb2.MetricPoint:
    """The message of one line of metrics."""
    message = run_pb2.MetricPoint(step=point.step, time=timestamp(point.at), attempt=point.attempt, epoch=point.epoch)
    for name, value in point.values.items():
        message.values[name] = number(value)
    return message


def points_by_step(points: Iterable[MetricPoint]) -> list[run_pb2.MetricPoint]:
    """One message for each step: its lines of training and of evaluation are one point of the curve."""
    messages: dict[int, run_pb2.MetricPoint] = {}
    for point in points:
        message = point_to_proto(point)
        known = messages.setdefault(point.step, message)
        if known is not message:
            known.values.update(message.values)
    return list(messages.values())


def _spec(document: dict[str, Any]) -> run_pb2.RunSpec:
    try:
        return run_pb2.RunSpec(**document)
    except (TypeError, ValueError):
        # With a field that this version does not know. Twenty times slower.
        return ParseDict(document, run_pb2.RunSpec(), ignore_unknown_fields=True)


def _progress(run: Run) -> run_pb2.Progress:
    progress = run_pb2.Progress(
        step=run.step,
        total_steps=run.total_steps,
        epoch=run.epoch,
        loss=run.loss or 0.0,
        tokens_per_second=run.tokens_per_second,
    )
    if run.eta_seconds is not None:
        progress.eta.CopyFrom(Duration(seconds=int(min(run.eta_seconds, MAX_ETA_SECONDS))))
    return progress
