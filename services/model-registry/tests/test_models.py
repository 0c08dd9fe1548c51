"""Models and versions over the wire."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select

from espalier.model_registry.v1 import events_pb2, service_pb2, service_pb2_grpc
from espalier.model_registry.v1 import resources_pb2 as pb
from espalier_common.db import Database, new_id
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox

ALL = ["models.*"]


def stub(api: Any, subject: str = "ada", scope: str = "own") -> Any:
    return service_pb2_grpc.ModelServiceStub(api.channel(permissions=ALL, subject=subject, scope=scope))


async def create_model(models: Any, name: str = "tuned") -> pb.Model:
    reply: pb.Model = await models.CreateModel(service_pb2.CreateModelRequest(model=pb.Model(name=name)))
    return reply


async def register(models: Any, model_id: str, run_id: str) -> pb.ModelVersion:
    request = service_pb2.CreateModelVersionRequest(model_id=model_id, run_id=run_id)
    reply: pb.ModelVersion = await models.CreateModelVersion(request)
    return reply


async def test_a_run_is_registered_as_a_version_with_its_lineage(api: Any, runs_peer: Any) -> None:
    models = stub(api)
    model = await create_model(models)
    run_id = runs_peer.add(step=7, template="chatml")
    version = await register(models, model.id, run_id)
    trained = runs_peer.models[run_id]
    assert (version.version, version.model_name, version.owner_id) == (1, "tuned", "ada")
    assert version.uri == trained.uri
    assert version.manifest_sha256 == trained.manifest_sha256
    assert (version.lineage.run_id, version.lineage.step) == (run_id, 7)
    assert list(version.lineage.dataset_version_ids) == list(trained.dataset_version_ids)
    fetched = await models.GetModelVersion(service_pb2.GetModelVersionRequest(version_id=version.id))
    assert fetched == version
    assert (await models.GetModel(service_pb2.GetModelRequest(model_id=model.id))).latest_version == 1


async def test_the_orchestrator_is_asked_with_the_callers_own_token(api: Any, runs_peer: Any) -> None:
    token = api.token_for(permissions=ALL, subject="ada", scope="own")
    models = service_pb2_grpc.ModelServiceStub(api.channel())
    metadata = (("authorization", f"Bearer {token}"),)
    model = await models.CreateModel(service_pb2.CreateModelRequest(model=pb.Model(name="tuned")), metadata=metadata)
    request = service_pb2.CreateModelVersionRequest(model_id=model.id, run_id=runs_peer.add())
    await models.CreateModelVersion(request, metadata=metadata)
    assert runs_peer.tokens == [f"Bearer {token}"]


async def test_the_same_run_again_gives_the_version_that_is_there(api: Any, runs_peer: Any) -> None:
    models = stub(api)
    model, run_id = await create_model(models), runs_peer.add()
    first = await register(models, model.id, run_id)
    assert await register(models, model.id, run_id) == first


async def test_registrations_at_the_same_time_get_numbers_without_gap_or_double(api: Any, runs_peer: Any) -> None:
    models = stub(api)
    model = await create_model(models)
    runs = [runs_peer.add() for _ in range(6)]
    versions = await asyncio.gather(*(register(models, model.id, run) for run in runs * 2))
    assert sorted({version.version for version in versions}) == [1, 2, 3, 4, 5, 6]
    assert len({version.id for version in versions}) == 6


async def test_the_base_is_known_when_its_run_is_registered_before_or_after(api: Any, runs_peer: Any) -> None:
    models = stub(api)
    base_model, tuned_model = await create_model(models, "base"), await create_model(models, "tuned")
    base_run = runs_peer.add()
    early = await register(models, tuned_model.id, runs_peer.add(base_run_id=base_run))
    assert (early.lineage.base_run_id, early.lineage.base_model_version_id) == (base_run, "")
    base = await register(models, base_model.id, base_run)
    late = await register(models, tuned_model.id, runs_peer.add(base_run_id=base_run))
    assert late.lineage.base_model_version_id == base.id
    early = await models.GetModelVersion(service_pb2.GetModelVersionRequest(version_id=early.id))
    assert early.lineage.base_model_version_id == base.id


async def test_an_unknown_run_is_told_as_the_orchestrator_tells_it(api: Any) -> None:
    models = stub(api)
    model = await create_model(models)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await register(models, model.id, new_id())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_belongs_to_another_user_is_not_found(api: Any, runs_peer: Any) -> None:
    model = await create_model(stub(api, "ada"))
    version = await register(stub(api, "ada"), model.id, runs_peer.add())
    eve = stub(api, "eve")
    for call in (
        eve.GetModel(service_pb2.GetModelRequest(model_id=model.id)),
        eve.ListModelVersions(service_pb2.ListModelVersionsRequest(model_id=model.id)),
        eve.GetModelVersion(service_pb2.GetModelVersionRequest(version_id=version.id)),
        register(eve, model.id, runs_peer.add()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await eve.ListModels(service_pb2.ListModelsRequest())).models
    admin = stub(api, "root", "all")
    assert (await admin.GetModel(service_pb2.GetModelRequest(model_id=model.id))).id == model.id


async def test_a_name_is_taken_once_by_its_owner_and_free_for_others(api: Any) -> None:
    await create_model(stub(api, "ada"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create_model(stub(api, "ada"))
    error = from_rpc_error(caught.value)
    assert error.reason == "MODEL_NAME_TAKEN"
    assert "choose another name" in error.message
    assert (await create_model(stub(api, "eve"))).owner_id == "eve"


async def test_lists_come_in_pages_newest_first(api: Any, runs_peer: Any) -> None:
    models = stub(api)
    for name in ("a", "b", "c"):
        await create_model(models, name)
    first = await models.ListModels(service_pb2.ListModelsRequest(page_size=2))
    rest = await models.ListModels(service_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token))
    assert [model.name for model in [*first.models, *rest.models]] == ["c", "b", "a"]
    assert rest.next_page_token == ""
    named = await models.ListModels(service_pb2.ListModelsRequest(name="b"))
    assert [model.name for model in named.models] == ["b"]
    for _ in range(3):
        await register(models, first.models[0].id, runs_peer.add())
    versions = await models.ListModelVersions(service_pb2.ListModelVersionsRequest(model_id=first.models[0].id))
    assert [version.version for version in versions.versions] == [3, 2, 1]


async def test_a_registration_is_told_to_the_others_once(api: Any, runs_peer: Any, database: Database) -> None:
    models = stub(api)
    model, run_id = await create_model(models), runs_peer.add()
    version = await register(models, model.id, run_id)
    await register(models, model.id, run_id)
    with database.transaction() as session:
        events = session.execute(select(outbox.c.subject, outbox.c.payload)).all()
    assert [event.subject for event in events] == ["espalier.model_registry.v1.ModelVersionRegistered"]
    assert events_pb2.ModelVersionRegistered.FromString(bytes(events[0].payload)).version == version
