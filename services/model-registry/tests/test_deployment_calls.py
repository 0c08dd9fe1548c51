"""Deployments over the wire: who may ask for what, and what is answered."""

import uuid
from typing import Any

import grpc
import grpc.aio
import pytest

from espalier.model_registry.v1 import resources_pb2 as pb
from espalier.model_registry.v1 import service_pb2, service_pb2_grpc
from espalier.training_orchestrator.v1 import run_pb2
from espalier_common.db import new_id
from espalier_common.errors import ResourceExhausted
from espalier_common.rpc.status import from_rpc_error
from espalier_model_registry.models import ModelVersion
from espalier_model_registry.reconciler import Reconciler
from espalier_model_registry.servers import ServerState


def stub(api: Any, subject: str = "ada", scope: str = "own") -> Any:
    return service_pb2_grpc.DeploymentServiceStub(api.channel(permissions=["models.*"], subject=subject, scope=scope))


def wanted(version: ModelVersion, name: str = "tuned-1") -> service_pb2.CreateDeploymentRequest:
    return service_pb2.CreateDeploymentRequest(deployment=pb.Deployment(name=name, model_version_id=version.id))


async def test_an_endpoint_is_told_while_it_answers_and_refused_with_a_sentence_before(
    api: Any, version: ModelVersion, servers: Any, reconciler: Reconciler
) -> None:
    deployments = stub(api)
    created = await deployments.CreateDeployment(wanted(version))
    assert created.state == pb.DEPLOYMENT_STATE_PENDING
    request = service_pb2.ResolveEndpointRequest(deployment_id=created.id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await deployments.ResolveEndpoint(request)
    error = from_rpc_error(caught.value)
    assert (error.reason, error.code) == ("DEPLOYMENT_NOT_READY", "FAILED_PRECONDITION")
    assert "Waits to be launched." in error.message
    servers.put(f"deployment-{created.id}", ServerState.READY)
    reconciler.reconcile()
    endpoint = await deployments.ResolveEndpoint(request)
    assert (endpoint.base_url, endpoint.model) == ("http://127.0.0.1:9000/v1", "tuned-1")
    assert endpoint.model_version_id == version.id


async def test_a_model_is_found_by_the_name_or_the_id_of_its_deployment(
    api: Any, version: ModelVersion, servers: Any, reconciler: Reconciler
) -> None:
    deployments = stub(api, "eve", "all")
    first = await deployments.CreateDeployment(wanted(version))
    await deployments.StopDeployment(service_pb2.StopDeploymentRequest(deployment_id=first.id))
    newest = await deployments.CreateDeployment(wanted(version))
    servers.put(f"deployment-{newest.id}", ServerState.READY)
    reconciler.reconcile()
    for model in ("tuned-1", newest.id):
        endpoint = await deployments.ResolveEndpoint(service_pb2.ResolveEndpointRequest(model=model))
        assert (endpoint.model, endpoint.deployment_id) == ("tuned-1", newest.id)
    listed = await deployments.ListDeployments(service_pb2.ListDeploymentsRequest(name="tuned-1"))
    assert [each.id for each in listed.deployments] == [newest.id, first.id]
    assert not (await deployments.ListDeployments(service_pb2.ListDeploymentsRequest(name="tuned"))).deployments

    for model in ("tuned", "0", str(uuid.UUID(int=7))):
        assert (
            await refusal(deployments.ResolveEndpoint(service_pb2.ResolveEndpointRequest(model=model))) == "NOT_FOUND"
        )
    both = service_pb2.ResolveEndpointRequest(model="tuned-1", deployment_id=newest.id)
    for request in (service_pb2.ResolveEndpointRequest(), both):
        assert await refusal(deployments.ResolveEndpoint(request)) == "INVALID_ARGUMENT"


async def refusal(call: Any) -> str:
    """The code with which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return str(caught.value.code().name)


async def test_what_one_deployed_everybody_with_the_permission_uses(
    api: Any, version: ModelVersion, servers: Any, reconciler: Reconciler
) -> None:
    created = await stub(api).CreateDeployment(wanted(version))
    servers.put(f"deployment-{created.id}", ServerState.READY)
    reconciler.reconcile()
    eve, named = stub(api, "eve"), {"deployment_id": created.id}
    assert (await eve.GetDeployment(service_pb2.GetDeploymentRequest(**named))).owner_id == "ada"
    assert [each.id for each in (await eve.ListDeployments(service_pb2.ListDeploymentsRequest())).deployments] == [
        created.id
    ]
    assert (await eve.ResolveEndpoint(service_pb2.ResolveEndpointRequest(**named))).model == "tuned-1"


async def test_only_its_owner_or_who_reaches_everything_stops_a_deployment(api: Any, version: ModelVersion) -> None:
    created = await stub(api).CreateDeployment(wanted(version))
    request = service_pb2.StopDeploymentRequest(deployment_id=created.id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(api, "eve").StopDeployment(request)
    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "DEPLOYMENT_OF_ANOTHER")
    assert error.message == "The deployment 'tuned-1' is not yours; ask its owner or an administrator to stop it."
    found = await stub(api).GetDeployment(service_pb2.GetDeploymentRequest(deployment_id=created.id))
    assert found.state == pb.DEPLOYMENT_STATE_PENDING
    stopped = await stub(api, "root", "all").StopDeployment(request)
    assert stopped.state == pb.DEPLOYMENT_STATE_STOPPING


async def test_a_version_that_one_does_not_see_is_not_deployed(api: Any, version: ModelVersion) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(api, "eve").CreateDeployment(wanted(version))
    assert from_rpc_error(caught.value).reason == "MODEL_VERSION_NOT_FOUND"
    assert (await stub(api, "root", "all").CreateDeployment(wanted(version))).owner_id == "root"


async def test_a_name_is_free_again_once_its_deployment_is_stopped(api: Any, version: ModelVersion) -> None:
    deployments = stub(api)
    first = await deployments.CreateDeployment(wanted(version))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await deployments.CreateDeployment(wanted(version))
    assert from_rpc_error(caught.value).reason == "DEPLOYMENT_NAME_TAKEN"
    await deployments.StopDeployment(service_pb2.StopDeploymentRequest(deployment_id=first.id))
    second = await deployments.CreateDeployment(wanted(version))
    assert second.id != first.id
    pending = await deployments.ListDeployments(service_pb2.ListDeploymentsRequest(state=pb.DEPLOYMENT_STATE_PENDING))
    assert [found.id for found in pending.deployments] == [second.id]
    assert len((await deployments.ListDeployments(service_pb2.ListDeploymentsRequest())).deployments) == 2


async def test_an_unknown_version_is_not_deployed(api: Any) -> None:
    request = service_pb2.CreateDeploymentRequest(deployment=pb.Deployment(name="x", model_version_id=new_id()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(api).CreateDeployment(request)
    assert from_rpc_error(caught.value).reason == "MODEL_VERSION_NOT_FOUND"


async def test_who_has_no_time_of_the_device_left_gets_no_new_server_and_keeps_the_one_that_runs(
    api: Any, version: ModelVersion, servers: Any, reconciler: Reconciler, limits: Any
) -> None:
    deployments = stub(api)
    running = await deployments.CreateDeployment(wanted(version))
    servers.put(f"deployment-{running.id}", ServerState.READY)
    limits.refusal = ResourceExhausted("This is over your quota for GPU-seconds a month.", retry_after=3600)
    request = wanted(version, "tuned-2")
    request.deployment.device = run_pb2.DEVICE_CUDA

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await deployments.CreateDeployment(request)

    error: Any = from_rpc_error(refused.value)
    assert (error.code, error.message, error.retry_after) == ("RESOURCE_EXHAUSTED", limits.refusal.message, 3600)
    assert limits.asked == [("ada", {"CPU_SECONDS": 0.0}), ("ada", {"GPU_SECONDS": 0.0})]
    reconciler.reconcile()
    listed = await deployments.ListDeployments(service_pb2.ListDeploymentsRequest())
    assert [(one.name, one.state) for one in listed.deployments] == [("tuned-1", pb.DEPLOYMENT_STATE_READY)]
