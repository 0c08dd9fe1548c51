"""Use cases: open sessions, begin an answer, keep how far it is, stop and end it, cut what a dead process left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_chat import repository
from espalier_chat.errors import AnswerInProgress, MessageNotFound, SessionNotFound, TurnRepeated
from espalier_chat.models import AnswerEnded, ChatSession, Message, MessageState, Outcome, Progress, Role
from espalier_common.db import new_id, utc_now
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest

HISTORY_MESSAGES = 2000
ORPHANS_AT_ONCE = 100
HOLD_SECONDS = 3600.0  # longer than answers take
CHARACTERS_OF_A_TOKEN = 4  # in English; a hold is an estimate, what is settled is not
CUT_BY_RESTART = "The chat service was restarted while the answer was generated; this is the text until then."

Publish = Callable[[Session, AnswerEnded], None]
"""Puts the event into the outbox, in the same transaction as the change."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a deployment answers, and the model name to send."""

    base_url: str
    model: str
    deployment_id: str = ""


class Deployments(Protocol):
    """What chat asks of the model registry."""

    async def resolve(self, deployment_id: str) -> Endpoint:
        """Where the deployment answers, with the caller's rights. Raises the registry's errors."""

    async def resolve_model(self, model: str) -> Endpoint:
        """Where the model of this name answers, with the caller's rights. Raises ModelNotFound, ModelNotReady."""


class Limits(Protocol):
    """What chat asks of auth, in its own name."""

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        """Holds what an answer will use. Blocks. Raises ResourceExhausted, and Unavailable when nobody can tell."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A message that a user sends; `request_id` (empty for none) makes sending it again harmless."""

    session_id: str
    text: str
    request_id: str = ""
    # Of the answer, known before it is begun: what is held for it goes by this name.
    answer_id: str = field(default_factory=new_id)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An answer that was begun: its message, the conversation to send, and how to sample."""

    answer: Message
    conversation: Sequence[Mapping[str, str]]
    parameters: Mapping[str, Any]


class Conversations:
    """The use cases. Each runs in the caller's transaction; the edge commits. A session is its owner's alone."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    def open_session(
        self,
        session: Session,
        principal: Principal,
        *,
        title: str,
        deployment_id: str,
        system_prompt: str,
        parameters: Mapping[str, Any],
    ) -> ChatSession:
        """Opens a session without messages."""
        opened = ChatSession(
            title=title,
            deployment_id=deployment_id,
            system_prompt=system_prompt,
            parameters=dict(parameters),
            owner_id=principal.subject,
        )
        session.add(opened)
        session.flush()
        return opened

    def get_session(self, session: Session, principal: Principal, session_id: str) -> ChatSession:
        """Raises SessionNotFound."""
        return _found(repository.find_session(session, session_id, principal), session_id)

    def list_sessions(self, session: Session, principal: Principal, *, page: PageRequest) -> Page[ChatSession]:
        """One's own, newest first."""
        return repository.list_sessions(session, principal, page=page)

    def list_messages(
        self, session: Session, principal: Principal, session_id: str, *, page: PageRequest
    ) -> Page[Message]:
        """Oldest first. Raises SessionNotFound."""
        self.get_session(session, principal, session_id)
        return repository.list_messages(session, session_id, page=page)

    def get_message(self, session: Session, principal: Principal, *, session_id: str, message_id: str) -> Message:
        """Raises SessionNotFound, MessageNotFound."""
        self.get_session(session, principal, session_id)
        message = repository.find_message(session, message_id, session_id=session_id)
        if message is None:
            raise MessageNotFound("message", message_id)
        return message

    def session_to_answer_in(self, session: Session, principal: Principal, request: Request) -> ChatSession:
        """One's own session, when no answer is being generated in it.

        Raises SessionNotFound, AnswerInProgress; TurnRepeated when the request was sent before.
        """
        found = _found(repository.find_session(session, request.session_id, principal), request.session_id)
        _refuse_second_answer(session, request)
        return found

    def begin_answer(self, session: Session, principal: Principal, request: Request, *, model: str = "") -> Turn:
        """Stores the user's message and the answer that is to be generated. Raises as `session_to_answer_in`."""
        session_id, text = request.session_id, request.text
        found = _found(repository.find_session(session, session_id, principal, lock=True), session_id)
        _refuse_second_answer(session, request)
        before = repository.last_messages(session, session_id, limit=HISTORY_MESSAGES)
        first = found.take_positions(2)
        question = Message(
            session_id=session_id, position=first, role=Role.USER, text=text, state=MessageState.COMPLETE
        )
        answer = Message(
            id=request.answer_id,
            session_id=session_id,
            position=first + 1,
            role=Role.ASSISTANT,
            state=MessageState.STREAMING,
            request_id=request.request_id or None,
            model=model,
        )
        found.name_after(text)
        session.add_all([question, answer])
        try:
            session.flush()
        except IntegrityError as error:
            raise _in_progress() from error
        return Turn(
            answer=answer,
            conversation=conversation(found.system_prompt, [*before, question]),
            parameters=found.parameters,
        )

    def save_progress(self, session: Session, *, alive: Sequence[str], progress: Sequence[Progress]) -> Sequence[str]:
        """Keeps how far the answers of this process are; gives those that are asked to stop."""
        asked_to_stop = repository.touch(session, alive, now=utc_now())
        if progress:
            repository.save_progress(session, progress)
        return asked_to_stop

    def end_answer(self, session: Session, message_id: str, outcome: Outcome) -> Message:
        """Keeps how an answer ended. The process that generated it has the last word."""
        message = repository.lock_message(session, message_id)
        message.end(outcome)
        found = repository.session_of(session, message)
        self._tell(session, message, found, at=outcome.finished_at, estimated=outcome.estimated)
        return message

    def ask_to_stop(self, session: Session, principal: Principal, *, session_id: str, message_id: str) -> Message:
        """Asks whichever process generates the answer to stop; nothing happens to one that has ended.

        Raises SessionNotFound, MessageNotFound.
        """
        message = self.get_message(session, principal, session_id=session_id, message_id=message_id)
        if message.state is MessageState.STREAMING:
            repository.lock_message(session, message_id).stop_requested = True
        return message

    def cut_orphans(self, session: Session, *, silent_for: timedelta) -> int:
        """Ends answers that no process has touched for so long; gives how many. What is stored of them is kept."""
        now = utc_now()
        orphans = repository.lock_orphans(session, untouched_since=now - silent_for, limit=ORPHANS_AT_ONCE)
        for message, found in orphans:
            message.cut(CUT_BY_RESTART)
            self._tell(session, message, found, at=now, estimated=True)
        return len(orphans)

    def _tell(self, session: Session, message: Message, found: ChatSession, *, at: datetime, estimated: bool) -> None:
        ended = AnswerEnded(
            message=message,
            deployment_id=found.deployment_id,
            owner_id=found.owner_id,
            estimated=estimated,
            at=at,
        )
        self._publish(session, ended)


def conversation(system_prompt: str, messages: Sequence[Message]) -> list[dict[str, str]]:
    """What the model is sent: the system prompt and the turns. A question whose answer failed or is empty is left out
    with it, so that user and assistant alternate as chat templates want it.
    """
    sent = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for index, message in enumerate(messages):
        answer = messages[index + 1] if index + 1 < len(messages) else None
        if message.role is Role.USER and (answer is None or _is_worth_sending(answer)):
            sent.append({"role": "user", "content": message.text})
        elif message.role is Role.ASSISTANT and _is_worth_sending(message):
            sent.append({"role": "assistant", "content": message.text})
    return sent


def _is_worth_sending(answer: Message) -> bool:
    return answer.state in {MessageState.COMPLETE, MessageState.INTERRUPTED} and bool(answer.text.strip())


def least_use(characters: int, most_tokens: int) -> dict[str, float]:
    """What an answer uses at least, by kind: to a text of this length, with as many tokens as it may have (0: unknown).

    The history of a session counts at the end: only the model server knows it.
    """
    tokens_in = float(estimated_tokens(characters))
    return {"REQUESTS": 1.0, "TOKENS_IN": tokens_in, "TOKENS_OUT": float(most_tokens)}


def tokens_used(
    prompt_tokens: int | None, completion_tokens: int | None, *, characters: int, pieces: int
) -> tuple[int, int]:
    """Tokens of prompt and answer: as the model server told them, else estimated.

    The estimate takes the characters of what was asked, and the pieces in which the answer came: tokens as a rule.
    """
    return (
        estimated_tokens(characters) if prompt_tokens is None else prompt_tokens,
        pieces if completion_tokens is None else completion_tokens,
    )


def estimated_tokens(characters: int) -> int:
    """Tokens of a text of this length, as long as no tokenizer has counted them."""
    return characters // CHARACTERS_OF_A_TOKEN + 1


def _found(found: ChatSession | None, session_id: str) -> ChatSession:
    if found is None:
        raise SessionNotFound("session", session_id)
    return found


def _refuse_second_answer(session: Session, request: Request) -> None:
    if request.request_id:
        answer = repository.find_answer_of_request(session, request.session_id, request.request_id)
        if answer is not None:
            raise TurnRepeated(answer.id)
    streaming = repository.find_streaming(session, request.session_id)
    if streaming is None:
        return
    if request.request_id and streaming.request_id == request.request_id:
        # Committed between the two selects.
        raise TurnRepeated(streaming.id)
    raise _in_progress()


def _in_progress() -> AnswerInProgress:
    return AnswerInProgress("An answer is being generated in this session; wait for its end, or stop it first.")
