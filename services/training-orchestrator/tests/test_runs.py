"""Runs: refused with every reason at once, created once, seen by their owner, and always in a state that says why."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import yaml

from espalier.training_orchestrator.v1 import dataset_pb2, run_pb2
from espalier.training_orchestrator.v1 import run_service_pb2 as rpc
from espalier_common.rpc.status import from_rpc_error
from espalier_training_orchestrator.runs.messages import run_to_proto, spec_document
from espalier_training_orchestrator.runs.models import Run, RunState

UNKNOWN = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"


async def refusal(call: Any) -> Any:
    """The error that the call is answered with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_every_reason_why_a_run_cannot_be_planned_is_told_at_once(orchestrator: Any) -> None:
    spec = run_pb2.RunSpec(
        stage=run_pb2.STAGE_SFT,
        finetuning_type=run_pb2.FINETUNING_TYPE_FULL,
        base_model=run_pb2.BaseModel(
            scratch=run_pb2.ScratchModel(
                hidden_size=100,
                num_hidden_layers=1,
                num_attention_heads=3,
                num_key_value_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
                vocab_size=300,
            )
        ),
        dataset_version_ids=[await orchestrator.text_version(), UNKNOWN],
        template="parrot",
        hyperparameters=run_pb2.Hyperparameters(cutoff_len=128),
        lora=run_pb2.LoraConfig(lora_rank=4),
        deepspeed=run_pb2.DeepspeedConfig(zero_stage=2, offload=run_pb2.OFFLOAD_CPU),
        resources=run_pb2.Resources(device=run_pb2.DEVICE_CUDA, nodes=2),
    )
    run = run_pb2.Run(name="wrong", spec=spec)
    error = await refusal(orchestrator.runs().CreateRun(rpc.CreateRunRequest(run=run)))
    assert error.reason == "RUN_SPEC_INVALID"
    assert {(violation.field.removeprefix("run.spec."), violation.reason) for violation in error.violations} == {
        ("base_model.scratch.num_attention_heads", "HEADS_DO_NOT_DIVIDE"),
        ("base_model.scratch.num_key_value_heads", "HEADS_DO_NOT_DIVIDE"),
        ("hyperparameters.cutoff_len", "CUTOFF_TOO_LONG"),
        ("dataset_version_ids[0]", "FORMAT_DOES_NOT_FIT_STAGE"),
        ("dataset_version_ids[1]", "DATASET_VERSION_NOT_FOUND"),
        ("template", "UNKNOWN_TEMPLATE"),
        ("lora", "LORA_SETTINGS_WITHOUT_LORA"),
        ("deepspeed.zero_stage", "ZERO_WITHOUT_DEEPSPEED"),
        ("deepspeed.offload", "OFFLOAD_WITHOUT_ZERO"),
        ("resources.nodes", "ONE_MACHINE"),
        ("resources.device", "NOT_ENOUGH_GPUS"),
    }


async def test_a_run_on_data_that_is_not_ready_is_refused_until_it_is(orchestrator: Any, spec: Any) -> None:
    broken = orchestrator.upload(b'{"text": 1}\n')
    version = await orchestrator.dataset_version(dataset_pb2.DatasetFile(split="train", upload_id=broken), format=4)
    run = run_pb2.Run(name="early", spec=spec(version.id))
    error = await refusal(orchestrator.runs().CreateRun(rpc.CreateRunRequest(run=run)))
    assert error.code == "FAILED_PRECONDITION"
    assert error.metadata["reasons"] == "DATASET_REJECTED"


async def test_a_base_run_that_has_not_succeeded_is_no_base(orchestrator: Any, spec: Any) -> None:
    first = await orchestrator.queued_run()
    asked = spec(first.spec.dataset_version_ids[0], base_model=run_pb2.BaseModel(run_id=first.id))
    error = await refusal(
        orchestrator.runs().CreateRun(rpc.CreateRunRequest(run=run_pb2.Run(name="second", spec=asked)))
    )
    assert error.metadata["reasons"] == "BASE_RUN_NOT_SUCCEEDED"


async def test_a_base_directory_outside_of_the_allowed_roots_is_refused_alike_whether_it_exists(
    orchestrator: Any, spec: Any, tmp_path: Any
) -> None:
    version_id = await orchestrator.text_version()
    messages = []
    for directory in (str(tmp_path), "/nowhere/at/all"):
        asked = spec(version_id, base_model=run_pb2.BaseModel(directory=directory))
        run = run_pb2.Run(name="outside", spec=asked)
        error = await refusal(orchestrator.runs().CreateRun(rpc.CreateRunRequest(run=run)))
        messages.append([(violation.reason, violation.description) for violation in error.violations])
    assert messages[0] == messages[1]
    assert messages[0][0][0] == "DIRECTORY_NOT_ALLOWED"


async def test_the_plan_shows_what_would_be_launched_and_launches_nothing(orchestrator: Any, spec: Any) -> None:
    asked = spec(
        await orchestrator.text_version(),
        deepspeed=run_pb2.DeepspeedConfig(enabled=True, zero_stage=2),
        resources=run_pb2.Resources(processes_per_node=2),
    )
    plan = await orchestrator.runs().PlanRun(rpc.PlanRunRequest(run=run_pb2.Run(name="dry", spec=asked)))
    assert list(plan.command[1:]) == ["-m", "espalier_trainer.runner"]
    assert plan.world_size == 2
    content = yaml.safe_load(plan.run_yaml)
    assert plan.run_yaml.startswith("# ESPALIER_RUN_DIR=")
    assert content["hyperparameters"] | {"max_steps": 10, "learning_rate": 5e-5} == content["hyperparameters"]
    assert content["deepspeed"] == {"enabled": True, "zero_stage": 2, "offload": "none"}
    assert content["cutoff_len"] == 64
    assert any("validation" in warning for warning in plan.warnings)
    await orchestrator.tick()
    assert not orchestrator.launcher.started


async def test_the_same_request_makes_one_run(orchestrator: Any, spec: Any) -> None:
    run = run_pb2.Run(name="once", spec=spec(await orchestrator.text_version()))
    request = rpc.CreateRunRequest(run=run, request_id=UNKNOWN)
    answers = await asyncio.gather(*(orchestrator.runs().CreateRun(request) for _ in range(5)))
    assert len({answer.id for answer in answers}) == 1
    other = rpc.CreateRunRequest(run=run_pb2.Run(name="twice", spec=run.spec), request_id=UNKNOWN)
    assert (await refusal(orchestrator.runs().CreateRun(other))).reason == "REQUEST_ID_REUSED"


async def test_a_foreign_run_is_answered_like_one_that_never_was(orchestrator: Any, people: Any) -> None:
    run = await orchestrator.queued_run()
    bob = orchestrator.runs(people[1])
    foreign = await refusal(bob.GetRun(rpc.GetRunRequest(run_id=run.id)))
    unknown = await refusal(bob.GetRun(rpc.GetRunRequest(run_id=UNKNOWN)))
    assert foreign.reason == unknown.reason == "RUN_NOT_FOUND"
    assert foreign.message.replace(run.id, "") == unknown.message.replace(UNKNOWN, "")
    for call in (
        bob.StopRun(rpc.StopRunRequest(run_id=run.id)),
        bob.ResumeRun(rpc.ResumeRunRequest(run_id=run.id)),
        bob.ListAttempts(rpc.ListAttemptsRequest(run_id=run.id)),
        bob.ListCheckpoints(rpc.ListCheckpointsRequest(run_id=run.id)),
        bob.ListMetrics(rpc.ListMetricsRequest(run_id=run.id)),
        bob.ReadLogs(rpc.ReadLogsRequest(run_id=run.id)),
        bob.GetRunModel(rpc.GetRunModelRequest(run_id=run.id)),
        bob.WatchRun(rpc.WatchRunRequest(run_id=run.id)).read(),
    ):
        assert (await refusal(call)).reason == "RUN_NOT_FOUND"
    assert not (await bob.ListRuns(rpc.ListRunsRequest())).runs


async def test_runs_are_listed_newest_first_by_state_and_page(orchestrator: Any) -> None:
    version_id = await orchestrator.text_version()
    made = [(await orchestrator.queued_run(version_id=version_id)).id for _ in range(3)]
    stub = orchestrator.runs()
    first = await stub.ListRuns(rpc.ListRunsRequest(page_size=2))
    rest = await stub.ListRuns(rpc.ListRunsRequest(page_size=2, page_token=first.next_page_token))
    assert [run.id for run in [*first.runs, *rest.runs]] == made[::-1]
    running = await stub.ListRuns(rpc.ListRunsRequest(state=run_pb2.RUN_STATE_RUNNING))
    assert not running.runs


async def test_a_run_that_waits_is_cancelled_at_once(orchestrator: Any) -> None:
    run = await orchestrator.queued_run()
    stopped = await orchestrator.runs().StopRun(rpc.StopRunRequest(run_id=run.id))
    assert (stopped.state, stopped.reason) == (run_pb2.RUN_STATE_CANCELLED, "CANCELLED_BY_USER")
    await orchestrator.tick()
    assert not orchestrator.launcher.started
    error = await refusal(orchestrator.runs().ResumeRun(rpc.ResumeRunRequest(run_id=run.id)))
    assert error.reason == "RUN_NOT_RESUMABLE"
    events = await orchestrator.runs().ListRunEvents(rpc.ListRunEventsRequest(run_id=run.id))
    assert [event.reason for event in events.events] == ["QUEUED", "CANCELLED_BY_USER"]


def test_a_spec_is_shown_as_it_was_asked_for_also_one_of_another_version() -> None:
    spec = run_pb2.RunSpec(
        stage=run_pb2.STAGE_SFT,
        base_model=run_pb2.BaseModel(hub="Qwen/Qwen3-0.6B"),
        dataset_version_ids=[UNKNOWN],
        hyperparameters=run_pb2.Hyperparameters(learning_rate=1e-4),
        resources=run_pb2.Resources(device=run_pb2.DEVICE_CUDA),
    )
    run = Run(id=UNKNOWN, owner_id="o", name="n", document=spec_document(spec), state=RunState.QUEUED, summary={})
    assert run_to_proto(run).spec == spec
    run.document = {**run.document, "of_another_version": 1}
    assert run_to_proto(run).spec == spec
