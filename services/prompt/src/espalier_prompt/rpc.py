"""The edge of prompt: proto in, use case, proto out. Commits here."""

from espalier.prompt.v1 import service_pb2, service_pb2_grpc
from espalier_common.db import Database
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.timestamps import timestamp
from espalier_prompt.models import Prompt, PromptVersion
from espalier_prompt.service import Prompts


class PromptRpc(service_pb2_grpc.PromptServiceServicer):
    """Keeps system prompts."""

    def __init__(self, database: Database, *, prompts: Prompts, paginator: Paginator) -> None:
        self._database = database
        self._prompts = prompts
        self._paginator = paginator

    def CreatePrompt(self, request: service_pb2.CreatePromptRequest, context: object) -> service_pb2.Prompt:
        wanted = request.prompt
        with self._database.transaction() as session:
            prompt, version = self._prompts.create(
                session,
                current_principal(),
                name=wanted.name,
                text=wanted.text,
                commit_message=wanted.commit_message,
            )
        return to_proto(prompt, version)

    def GetPrompt(self, request: service_pb2.GetPromptRequest, context: object) -> service_pb2.Prompt:
        with self._database.reading() as session:
            prompt = self._prompts.get(session, current_principal(), request.prompt_id)
        return to_proto(prompt, prompt.newest)

    def ListPrompts(self, request: service_pb2.ListPromptsRequest, context: object) -> service_pb2.ListPromptsResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._prompts.list(session, current_principal(), page=page)
        return service_pb2.ListPromptsResponse(
            prompts=[to_proto(prompt, prompt.newest) for prompt in found.items],
            next_page_token=found.next_page_token,
        )


def to_proto(prompt: Prompt, version: PromptVersion) -> service_pb2.Prompt:
    """The prompt at this version."""
    return service_pb2.Prompt(
        id=prompt.id,
        name=prompt.name,
        text=version.text,
        commit_message=version.commit_message,
        version=version.version,
        variables=version.variables,
        owner_id=prompt.owner_id,
        create_time=timestamp(prompt.created_at),
    )
