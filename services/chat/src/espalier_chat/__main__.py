"""Chat's process: `python -m espalier_chat [serve|migrate]`."""

from datetime import timedelta

from espalier.chat.v1 import service_pb2, service_pb2_grpc
from espalier_chat.answers import ORPHAN_SILENCE, Answers
from espalier_chat.events import publish
from espalier_chat.peers import RegistryDeployments
from espalier_chat.rpc import ChatRpc
from espalier_chat.service import Conversations
from espalier_chat.settings import ChatSettings
from espalier_chat.upstream import ModelServers
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.identity import ServiceIdentity
from espalier_common.outbox import OutboxRelay
from espalier_common.pagination import Paginator
from espalier_common.quotas import Limits
from espalier_common.rpc.server import Service, run

NAME = "chat"


def build(settings: ChatSettings) -> Service:
    """Everything wired, nothing started."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name=NAME)
    conversations = Conversations(publish)
    upstream = ModelServers(idle_seconds=settings.chat_idle_seconds)
    deployments = RegistryDeployments(settings.address_of("model-registry"))
    answers = Answers(database, conversations=conversations, upstream=upstream, settings=settings)
    auth, secret = settings.address_of("auth"), settings.service_secret.get_secret_value()
    chat = ChatRpc(
        database,
        conversations=conversations,
        answers=answers,
        deployments=deployments,
        limits=Limits(auth, token=ServiceIdentity(auth, name=NAME, secret=secret).token),
        paginator=Paginator(secret),
    )
    descriptor = service_pb2.DESCRIPTOR.services_by_name["ChatService"]
    # On one machine there is one chat process: what streams when it starts was left by the one before.
    silence = timedelta(0) if settings.home else ORPHAN_SILENCE
    return Service(
        name=NAME,
        package="espalier_chat",
        settings=settings,
        database=database,
        bus=bus,
        servicers=[(service_pb2_grpc.add_ChatServiceServicer_to_server, chat, descriptor)],
        background=[OutboxRelay(database, bus).run, answers.run],
        on_start=[lambda: answers.cut_orphans(silence)],
        on_drain=[answers.drain],
        on_stop=[upstream.close, deployments.close],
    )


if __name__ == "__main__":
    run(ChatSettings, build)
