"""Composition root: `python -m espalier_eval [serve|migrate]`."""

from espalier.eval.v1 import service_pb2, service_pb2_grpc
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.rpc.server import Service, run
from espalier_eval.events import publish
from espalier_eval.rpc import EvalRpc
from espalier_eval.service import Evaluations
from espalier_eval.settings import EvalSettings


def build(settings: EvalSettings) -> Service:
    """Everything that the process of eval runs."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name="eval")
    evaluations = EvalRpc(database, evaluations=Evaluations(publish), paginator=Paginator(settings.service_secret))
    return Service(
        name="eval",
        package="espalier_eval",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[
            (
                service_pb2_grpc.add_EvalServiceServicer_to_server,
                evaluations,
                service_pb2.DESCRIPTOR.services_by_name["EvalService"],
            )
        ],
        background=[OutboxRelay(database, bus).run],
    )


if __name__ == "__main__":
    run(EvalSettings, build)
