"""Puts chat together: its parts, made of its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from espalier_chat.answers import Answers
from espalier_chat.completions import Completions
from espalier_chat.events import publish, publish_completion
from espalier_chat.peers import RegistryDeployments
from espalier_chat.rpc import ChatRpc, CompletionRpc, servicers
from espalier_chat.service import Conversations, Limits
from espalier_chat.settings import ChatSettings
from espalier_chat.upstream import ModelServers
from espalier_common import quotas
from espalier_common.db import Database
from espalier_common.identity import ServiceIdentity
from espalier_common.pagination import Paginator

NAME = "chat"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the process runs and ends."""

    answers: Answers
    completions: Completions
    upstream: ModelServers
    deployments: RegistryDeployments
    servicers: Sequence[Any]


def assemble(settings: ChatSettings, database: Database) -> Parts:
    """With auth and the model registry at the addresses of the settings."""
    auth, secret = settings.address_of("auth"), settings.service_secret.get_secret_value()
    limits = quotas.Limits(auth, token=ServiceIdentity(auth, name=NAME, secret=secret).token)
    registry = RegistryDeployments(settings.address_of("model-registry"))
    return join(settings, database, limits=limits, deployments=registry, paginator=Paginator(secret))


def join(
    settings: ChatSettings,
    database: Database,
    *,
    limits: Limits,
    deployments: RegistryDeployments,
    paginator: Paginator,
) -> Parts:
    """The same with these peers."""
    conversations = Conversations(publish)
    upstream = ModelServers(settings)
    answers = Answers(database, conversations=conversations, upstream=upstream, settings=settings)
    completions = Completions(database, limits=limits, upstream=upstream, publish=publish_completion)
    chat = ChatRpc(
        database,
        conversations=conversations,
        answers=answers,
        deployments=deployments,
        limits=limits,
        paginator=paginator,
    )
    return Parts(
        answers=answers,
        completions=completions,
        upstream=upstream,
        deployments=deployments,
        servicers=servicers(chat, CompletionRpc(completions, deployments=deployments)),
    )
