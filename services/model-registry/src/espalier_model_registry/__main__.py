"""The model registry's process: `python -m espalier_model_registry [serve|migrate]`."""

from espalier.model_registry.v1 import service_pb2, service_pb2_grpc
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.identity import ServiceIdentity
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.quotas import Limits
from espalier_common.rpc.channel import open_sync_channel
from espalier_common.rpc.server import Service, run
from espalier_model_registry.events import publish, workload_consumer
from espalier_model_registry.peers import OrchestratorRuns, OrchestratorWorkloads
from espalier_model_registry.reconciler import Reconciler
from espalier_model_registry.rpc import DeploymentRpc, ModelRpc
from espalier_model_registry.service import Registry
from espalier_model_registry.settings import ModelRegistrySettings

NAME = "model-registry"


def build(settings: ModelRegistrySettings) -> Service:
    """Everything wired, nothing started."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name=NAME)
    secret = settings.service_secret.get_secret_value()
    identity = ServiceIdentity(settings.address_of("auth"), name=NAME, secret=secret)
    orchestrator = open_sync_channel(settings.address_of("training-orchestrator"), identity=identity)
    limits = Limits(settings.address_of("auth"), token=identity.token)
    registry, paginator = Registry(publish, limits=limits), Paginator(secret)
    reconciler = Reconciler(database, workloads=OrchestratorWorkloads(orchestrator), publish=publish, settings=settings)
    models = ModelRpc(database, registry=registry, runs=OrchestratorRuns(orchestrator), paginator=paginator)
    deployments = DeploymentRpc(database, registry=registry, paginator=paginator)
    services = service_pb2.DESCRIPTOR.services_by_name
    return Service(
        name=NAME,
        package="espalier_model_registry",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[
            (service_pb2_grpc.add_ModelServiceServicer_to_server, models, services["ModelService"]),
            (service_pb2_grpc.add_DeploymentServiceServicer_to_server, deployments, services["DeploymentService"]),
        ],
        background=[OutboxRelay(database, bus).run, workload_consumer(bus, database).run, reconciler.run],
    )


if __name__ == "__main__":
    run(ModelRegistrySettings, build)
