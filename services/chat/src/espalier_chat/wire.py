"""Entities as messages of the contract; used where requests are answered and where events are told."""

from typing import Any

from espalier.chat.v1 import service_pb2 as pb
from espalier_chat.models import ChatSession, Message, MessageState, Role
from espalier_common.rpc.timestamps import timestamp

STATES = {
    MessageState.STREAMING: pb.MESSAGE_STATE_STREAMING,
    MessageState.COMPLETE: pb.MESSAGE_STATE_COMPLETE,
    MessageState.INTERRUPTED: pb.MESSAGE_STATE_INTERRUPTED,
    MessageState.FAILED: pb.MESSAGE_STATE_FAILED,
}
ROLES = {Role.USER: pb.ROLE_USER, Role.ASSISTANT: pb.ROLE_ASSISTANT}
PARAMETERS = ("temperature", "top_p", "max_tokens", "seed")


def parameters_of(message: pb.SamplingParameters) -> dict[str, Any]:
    """What is set, under the names of the OpenAI API."""
    return {name: getattr(message, name) for name in PARAMETERS if message.HasField(name)}  # type: ignore[arg-type]


def session_to_proto(session: ChatSession) -> pb.Session:
    return pb.Session(
        id=session.id,
        title=session.title,
        deployment_id=session.deployment_id,
        system_prompt=session.system_prompt,
        parameters=pb.SamplingParameters(**session.parameters),
        owner_id=session.owner_id,
        create_time=timestamp(session.created_at),
    )


def message_to_proto(message: Message) -> pb.Message:
    return pb.Message(
        id=message.id,
        session_id=message.session_id,
        role=ROLES[message.role],
        text=message.text,
        state=STATES[message.state],
        error=message.error,
        finish_reason=message.finish_reason,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        time_to_first_token_seconds=message.time_to_first_token,
        duration_seconds=message.duration,
        create_time=timestamp(message.created_at),
    )
