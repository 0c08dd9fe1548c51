"""Composition root: `python -m espalier_prompt [serve|migrate]`."""

from espalier.prompt.v1 import service_pb2, service_pb2_grpc
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.rpc.server import Service, run
from espalier_prompt.events import publish
from espalier_prompt.rpc import PromptRpc
from espalier_prompt.service import Prompts
from espalier_prompt.settings import PromptSettings


def build(settings: PromptSettings) -> Service:
    """Everything that the process of prompt runs."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name="prompt")
    prompts = PromptRpc(database, prompts=Prompts(publish), paginator=Paginator(settings.service_secret))
    return Service(
        name="prompt",
        package="espalier_prompt",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[
            (
                service_pb2_grpc.add_PromptServiceServicer_to_server,
                prompts,
                service_pb2.DESCRIPTOR.services_by_name["PromptService"],
            )
        ],
        background=[OutboxRelay(database, bus).run],
    )


if __name__ == "__main__":
    run(PromptSettings, build)
