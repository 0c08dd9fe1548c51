"""The servicer: message in, use case, message out; one RPC is one transaction, committed here or in `answers`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from espalier.chat.v1 import completion_pb2, completion_pb2_grpc, service_pb2_grpc
from espalier.chat.v1 import service_pb2 as pb
from espalier_chat.answer import Delta, Reader
from espalier_chat.answers import Answers
from espalier_chat.asking import Asked, read_asked
from espalier_chat.completions import Completions
from espalier_chat.errors import TurnRepeated
from espalier_chat.models import ChatSession, Message
from espalier_chat.service import HOLD_SECONDS, Conversations, Deployments, Limits, Request, least_use
from espalier_chat.wire import message_to_proto, parameters_of, session_to_proto
from espalier_common.db import Database
from espalier_common.errors import FailedPrecondition
from espalier_common.identity import Principal, current_principal
from espalier_common.pagination import Paginator

EVENTS, JSON = "text/event-stream", "application/json"
LARGE_BYTES = 128 << 10  # reading more takes long enough to be noticed by other calls


class ChatRpc(service_pb2_grpc.ChatServiceServicer):
    """Sessions, messages and streaming answers."""

    def __init__(
        self,
        database: Database,
        *,
        conversations: Conversations,
        answers: Answers,
        deployments: Deployments,
        limits: Limits,
        paginator: Paginator,
    ) -> None:
        self._database = database
        self._conversations = conversations
        self._answers = answers
        self._deployments = deployments
        self._limits = limits
        self._paginator = paginator

    async def CreateSession(self, request: pb.CreateSessionRequest, context: object) -> pb.Session:
        wanted = request.session
        # One that does not answer yet is there all the same; what is the matter is told when a message is sent.
        with suppress(FailedPrecondition):
            await self._deployments.resolve(wanted.deployment_id)
        return session_to_proto(await asyncio.to_thread(self._open_session, wanted, current_principal()))

    def GetSession(self, request: pb.GetSessionRequest, context: object) -> pb.Session:
        with self._database.reading() as session:
            return session_to_proto(self._conversations.get_session(session, current_principal(), request.session_id))

    def ListSessions(self, request: pb.ListSessionsRequest, context: object) -> pb.ListSessionsResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._conversations.list_sessions(session, current_principal(), page=page)
        sessions = [session_to_proto(item) for item in found.items]
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=found.next_page_token)

    def ListMessages(self, request: pb.ListMessagesRequest, context: object) -> pb.ListMessagesResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._conversations.list_messages(session, current_principal(), request.session_id, page=page)
        messages = [message_to_proto(item) for item in found.items]
        return pb.ListMessagesResponse(messages=messages, next_page_token=found.next_page_token)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Any) -> AsyncIterator[pb.MessageDelta]:
        principal = current_principal()
        sent = Request(session_id=request.session_id, text=request.text, request_id=request.request_id)
        try:
            session = await asyncio.to_thread(self._session_to_answer_in, sent, principal)
            # Asked before anything is stored: a deployment that does not answer leaves no message behind.
            endpoint = await self._deployments.resolve(session.deployment_id)
            await asyncio.to_thread(self._hold, principal, session, sent)
            reader = await self._answers.begin(principal, sent, endpoint)
        except TurnRepeated as repeated:
            names = {"session_id": request.session_id, "message_id": repeated.message_id}
            deltas = self._read(principal, offset=0, context=context, **names)
            message_id = repeated.message_id
        else:
            deltas, message_id = _read_as(reader, offset=0, context=context), reader.message_id
        yield pb.MessageDelta(message_id=message_id, offset="0")
        async for delta in deltas:
            yield _delta_to_proto(message_id, delta)

    async def StreamMessage(self, request: pb.StreamMessageRequest, context: Any) -> AsyncIterator[pb.MessageDelta]:
        names = {"session_id": request.session_id, "message_id": request.message_id}
        async for delta in self._read(current_principal(), offset=int(request.offset or "0"), context=context, **names):
            yield _delta_to_proto(request.message_id, delta)

    async def StopMessage(self, request: pb.StopMessageRequest, context: object) -> pb.Message:
        message = await self._answers.stop(
            current_principal(), session_id=request.session_id, message_id=request.message_id
        )
        return message_to_proto(message)

    async def _read(
        self, principal: Principal, *, session_id: str, message_id: str, offset: int, context: Any
    ) -> AsyncIterator[Delta]:
        """An answer from the offset on, wherever it is generated."""
        # Whether the caller may see it stands in the database alone.
        await asyncio.to_thread(self._message, principal, session_id=session_id, message_id=message_id)
        answer = self._answers.find(message_id)
        if answer is not None:
            deltas = _read_as(answer.attach(), offset=offset, context=context)
        else:
            deltas = self._answers.follow(principal, session_id=session_id, message_id=message_id, offset=offset)
        async for delta in deltas:
            yield delta

    def _open_session(self, wanted: pb.Session, principal: Principal) -> ChatSession:
        with self._database.transaction() as session:
            return self._conversations.open_session(
                session,
                principal,
                title=wanted.title,
                deployment_id=wanted.deployment_id,
                system_prompt=wanted.system_prompt,
                parameters=parameters_of(wanted.parameters),
            )

    def _session_to_answer_in(self, sent: Request, principal: Principal) -> ChatSession:
        with self._database.reading() as session:
            return self._conversations.session_to_answer_in(session, principal, sent)

    def _hold(self, principal: Principal, session: ChatSession, sent: Request) -> None:
        """AnswerFinished ends it, whatever way the answer goes; one that was never begun ends by itself."""
        self._limits.reserve(
            sent.answer_id,
            user_id=principal.subject,
            amounts=least_use(len(sent.text), session.parameters.get("max_tokens", 0)),
            seconds=HOLD_SECONDS,
        )

    def _message(self, principal: Principal, *, session_id: str, message_id: str) -> Message:
        with self._database.reading() as session:
            return self._conversations.get_message(session, principal, session_id=session_id, message_id=message_id)


class CompletionRpc(completion_pb2_grpc.CompletionServiceServicer):
    """The OpenAI API's chat completions."""

    def __init__(self, completions: Completions, *, deployments: Deployments) -> None:
        self._completions = completions
        self._deployments = deployments

    async def CreateCompletion(
        self, request: completion_pb2.CreateCompletionRequest, context: Any
    ) -> AsyncIterator[completion_pb2.CreateCompletionResponse]:
        asked = await _asked(request.content)
        endpoint = await self._deployments.resolve_model(asked.model)
        completion = self._completions.begin(current_principal(), asked, endpoint)
        # gRPC may drop a generator without closing it when the client goes; this is called at the end of any call.
        context.add_done_callback(lambda _: completion.stop())
        content_type = EVENTS if asked.streams else JSON
        try:
            async for content in completion.pipe.read():
                yield completion_pb2.CreateCompletionResponse(content=content, content_type=content_type)
                content_type = ""
        finally:
            completion.stop()


def servicers(chat: ChatRpc, completion: CompletionRpc) -> list[Any]:
    """Entries for the server."""
    services = {**pb.DESCRIPTOR.services_by_name, **completion_pb2.DESCRIPTOR.services_by_name}
    return [
        (service_pb2_grpc.add_ChatServiceServicer_to_server, chat, services["ChatService"]),
        (completion_pb2_grpc.add_CompletionServiceServicer_to_server, completion, services["CompletionService"]),
    ]


async def _asked(content: bytes) -> Asked:
    return await asyncio.to_thread(read_asked, content) if len(content) > LARGE_BYTES else read_asked(content)


def _read_as(reader: Reader, *, offset: int, context: Any) -> AsyncIterator[Delta]:
    # gRPC may drop a generator without closing it when the client goes; the callback is called at the end of any call.
    context.add_done_callback(lambda _: reader.close())
    return reader.read(offset)


def _delta_to_proto(message_id: str, delta: Delta) -> pb.MessageDelta:
    return pb.MessageDelta(
        message_id=message_id,
        offset=str(delta.offset),
        text=delta.text,
        message=message_to_proto(delta.message) if delta.message is not None else None,
    )
