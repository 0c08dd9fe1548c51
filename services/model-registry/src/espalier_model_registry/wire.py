"""Entities as messages of the contract; used where requests are answered and where events are told."""

from espalier.model_registry.v1 import resources_pb2 as pb
from espalier.training_orchestrator.v1 import run_pb2
from espalier_common.rpc.timestamps import timestamp
from espalier_model_registry.models import Deployment, DeploymentState, Model, ModelVersion

STATES = {
    DeploymentState.PENDING: pb.DEPLOYMENT_STATE_PENDING,
    DeploymentState.STARTING: pb.DEPLOYMENT_STATE_STARTING,
    DeploymentState.READY: pb.DEPLOYMENT_STATE_READY,
    DeploymentState.STOPPING: pb.DEPLOYMENT_STATE_STOPPING,
    DeploymentState.STOPPED: pb.DEPLOYMENT_STATE_STOPPED,
    DeploymentState.FAILED: pb.DEPLOYMENT_STATE_FAILED,
}
STATES_BY_NUMBER = {number: state for state, number in STATES.items()}

DEVICES = {"cpu": run_pb2.DEVICE_CPU, "cuda": run_pb2.DEVICE_CUDA}
DEVICES_BY_NUMBER = {run_pb2.DEVICE_UNSPECIFIED: "cpu"} | {number: name for name, number in DEVICES.items()}


def model_to_proto(model: Model) -> pb.Model:
    return pb.Model(
        id=model.id,
        name=model.name,
        description=model.description,
        owner_id=model.owner_id,
        latest_version=model.latest_version,
        create_time=timestamp(model.created_at),
    )


def version_to_proto(version: ModelVersion) -> pb.ModelVersion:
    return pb.ModelVersion(
        id=version.id,
        model_id=version.model_id,
        model_name=version.model.name,
        version=version.number,
        lineage=pb.Lineage(
            run_id=version.run_id,
            step=version.step,
            dataset_version_ids=version.dataset_version_ids,
            base_run_id=version.base_run_id or "",
            base_model_version_id=version.base_model_version_id or "",
        ),
        uri=version.uri,
        manifest_sha256=version.manifest_sha256,
        parameters=version.parameters,
        template=version.template,
        owner_id=version.owner_id,
        create_time=timestamp(version.created_at),
    )


def deployment_to_proto(deployment: Deployment) -> pb.Deployment:
    return pb.Deployment(
        id=deployment.id,
        name=deployment.name,
        model_version_id=deployment.model_version_id,
        device=DEVICES[deployment.device],
        state=STATES[deployment.state],
        reason=deployment.reason,
        message=deployment.message,
        owner_id=deployment.owner_id,
        create_time=timestamp(deployment.created_at),
        ready_time=timestamp(deployment.ready_at),
    )
