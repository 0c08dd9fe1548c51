"""The servicers: message in, use case, message out; one RPC is one transaction, committed here."""

from espalier.model_registry.v1 import resources_pb2 as pb
from espalier.model_registry.v1 import service_pb2, service_pb2_grpc
from espalier_common.db import Database
from espalier_common.errors import FieldViolation, InvalidArgument
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_model_registry.service import Registry, Runs
from espalier_model_registry.wire import (
    DEVICES_BY_NUMBER,
    STATES_BY_NUMBER,
    deployment_to_proto,
    model_to_proto,
    version_to_proto,
)


class ModelRpc(service_pb2_grpc.ModelServiceServicer):
    """Models and their versions."""

    def __init__(self, database: Database, *, registry: Registry, runs: Runs, paginator: Paginator) -> None:
        self._database = database
        self._registry = registry
        self._runs = runs
        self._paginator = paginator

    def CreateModel(self, request: service_pb2.CreateModelRequest, context: object) -> pb.Model:
        with self._database.transaction() as session:
            model = self._registry.create_model(
                session, current_principal(), name=request.model.name, description=request.model.description
            )
            return model_to_proto(model)

    def GetModel(self, request: service_pb2.GetModelRequest, context: object) -> pb.Model:
        with self._database.reading() as session:
            return model_to_proto(self._registry.get_model(session, current_principal(), request.model_id))

    def ListModels(self, request: service_pb2.ListModelsRequest, context: object) -> service_pb2.ListModelsResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._registry.list_models(session, current_principal(), name=request.name, page=page)
            models = [model_to_proto(model) for model in found.items]
        return service_pb2.ListModelsResponse(models=models, next_page_token=found.next_page_token)

    def CreateModelVersion(self, request: service_pb2.CreateModelVersionRequest, context: object) -> pb.ModelVersion:
        principal, names = current_principal(), {"model_id": request.model_id}
        with self._database.transaction() as session:
            known = self._registry.find_registered(session, principal, run_id=request.run_id, **names)
            if known is not None:
                return version_to_proto(known)
        # Asked between two transactions: no lock is held while another service answers.
        trained = self._runs.trained_model(request.run_id)
        with self._database.transaction() as session:
            return version_to_proto(self._registry.register_version(session, principal, trained=trained, **names))

    def GetModelVersion(self, request: service_pb2.GetModelVersionRequest, context: object) -> pb.ModelVersion:
        with self._database.reading() as session:
            return version_to_proto(self._registry.get_version(session, current_principal(), request.version_id))

    def ListModelVersions(
        self, request: service_pb2.ListModelVersionsRequest, context: object
    ) -> service_pb2.ListModelVersionsResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._registry.list_versions(session, current_principal(), model_id=request.model_id, page=page)
            versions = [version_to_proto(version) for version in found.items]
        return service_pb2.ListModelVersionsResponse(versions=versions, next_page_token=found.next_page_token)


class DeploymentRpc(service_pb2_grpc.DeploymentServiceServicer):
    """Deployments: intents are written down here, the reconciler carries them out."""

    def __init__(self, database: Database, *, registry: Registry, paginator: Paginator) -> None:
        self._database = database
        self._registry = registry
        self._paginator = paginator

    def CreateDeployment(self, request: service_pb2.CreateDeploymentRequest, context: object) -> pb.Deployment:
        wanted, device = request.deployment, DEVICES_BY_NUMBER[request.deployment.device]
        self._registry.check_limits(current_principal(), device)
        with self._database.transaction() as session:
            deployment = self._registry.deploy(
                session, current_principal(), name=wanted.name, version_id=wanted.model_version_id, device=device
            )
            return deployment_to_proto(deployment)

    def GetDeployment(self, request: service_pb2.GetDeploymentRequest, context: object) -> pb.Deployment:
        with self._database.reading() as session:
            return deployment_to_proto(self._registry.get_deployment(session, request.deployment_id))

    def ListDeployments(
        self, request: service_pb2.ListDeploymentsRequest, context: object
    ) -> service_pb2.ListDeploymentsResponse:
        page = self._paginator.read(request)
        state = STATES_BY_NUMBER.get(request.state)
        with self._database.reading() as session:
            found = self._registry.list_deployments(session, state=state, name=request.name, page=page)
            deployments = [deployment_to_proto(deployment) for deployment in found.items]
        return service_pb2.ListDeploymentsResponse(deployments=deployments, next_page_token=found.next_page_token)

    def StopDeployment(self, request: service_pb2.StopDeploymentRequest, context: object) -> pb.Deployment:
        with self._database.transaction() as session:
            return deployment_to_proto(self._registry.undeploy(session, current_principal(), request.deployment_id))

    def ResolveEndpoint(self, request: service_pb2.ResolveEndpointRequest, context: object) -> service_pb2.Endpoint:
        _require_one(request)
        with self._database.reading() as session:
            if request.model:
                found = self._registry.deployment_of_model(session, request.model)
            else:
                found = self._registry.get_deployment(session, request.deployment_id)
            deployment = self._registry.endpoint_of(found)
        return service_pb2.Endpoint(
            base_url=deployment.base_url,
            model=deployment.name,
            model_version_id=deployment.model_version_id,
            deployment_id=deployment.id,
        )


def _require_one(request: service_pb2.ResolveEndpointRequest) -> None:
    if bool(request.model) == bool(request.deployment_id):
        violation = FieldViolation("deployment_id", "or model must be given, and not both", "ONE_OF")
        raise InvalidArgument("Name the deployment by its id or as a model, and not by both.", violations=[violation])
