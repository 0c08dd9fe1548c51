"""Every select on sessions and messages. What a caller asks for is narrowed to its own, whatever its scope."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from espalier_chat.models import ChatSession, Message, MessageState, Progress, RunningCompletion
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import private

MAX_PAGE_BYTES = 8 << 20  # with one overlong message more, a page stays below gRPC's 16 MiB


def find_session(session: Session, session_id: str, principal: Principal, *, lock: bool = False) -> ChatSession | None:
    """The caller's session; locked against other writers until the transaction ends when asked."""
    statement = select(ChatSession).where(ChatSession.id == session_id, private(ChatSession.owner_id, principal))
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def session_of(session: Session, message: Message) -> ChatSession:
    """The session that a message belongs to, whoever owns it."""
    return session.get_one(ChatSession, message.session_id)


def list_sessions(session: Session, principal: Principal, *, page: PageRequest) -> Page[ChatSession]:
    """The caller's sessions, newest first."""
    statement = select(ChatSession).where(private(ChatSession.owner_id, principal))
    return paginate(session, statement, order=(ChatSession.created_at.desc(), ChatSession.id.desc()), page=page)


def find_message(session: Session, message_id: str, *, session_id: str) -> Message | None:
    """The message of this session."""
    return session.scalars(
        select(Message).where(Message.id == message_id, Message.session_id == session_id)
    ).one_or_none()


def lock_message(session: Session, message_id: str) -> Message:
    """The message, locked. It must exist."""
    return session.scalars(select(Message).where(Message.id == message_id).with_for_update()).one()


def list_messages(session: Session, session_id: str, *, page: PageRequest) -> Page[Message]:
    """Messages, oldest first; a page ends early rather than be too big for one answer."""
    sizes = select(func.octet_length(Message.text)).where(Message.session_id == session_id)
    if page.after is not None:
        sizes = sizes.where(Message.position > page.after[0])
    fitting, total = 0, 0
    for size in session.scalars(sizes.order_by(Message.position).limit(page.size)):
        total += size
        if fitting and total > MAX_PAGE_BYTES:
            break
        fitting += 1
    statement = select(Message).where(Message.session_id == session_id)
    return paginate(session, statement, order=(Message.position,), page=replace(page, size=max(fitting, 1)))


def find_answer_of_request(session: Session, session_id: str, request_id: str) -> Message | None:
    """The answer to the request that its caller gave this id."""
    return session.scalars(
        select(Message).where(Message.session_id == session_id, Message.request_id == request_id)
    ).one_or_none()


def find_streaming(session: Session, session_id: str) -> Message | None:
    """The answer that is being generated in a session; there is one at most."""
    return session.scalars(
        select(Message).where(Message.session_id == session_id, Message.state == MessageState.STREAMING)
    ).one_or_none()


def last_messages(session: Session, session_id: str, *, limit: int) -> Sequence[Message]:
    """The newest messages of a session, oldest first."""
    newest = select(Message).where(Message.session_id == session_id).order_by(Message.position.desc()).limit(limit)
    return list(reversed(session.scalars(newest).all()))


def touch(session: Session, message_ids: Iterable[str], *, now: datetime) -> Sequence[str]:
    """Says that the answers are still being generated; gives those that are asked to stop."""
    statement = (
        update(Message)
        .where(Message.id.in_(list(message_ids)), Message.state == MessageState.STREAMING)
        .values(touched_at=now)
        .returning(Message.id, Message.stop_requested)
    )
    return [message_id for message_id, stop_requested in session.execute(statement) if stop_requested]


def save_progress(session: Session, progress: Iterable[Progress]) -> None:
    """Stores how far the answers are; one that has ended meanwhile keeps its final text."""
    table = Message.__table__
    statement = (
        update(table)  # type: ignore[arg-type]
        .where(table.c.id == bindparam("message"), table.c.state == MessageState.STREAMING)
        .values(text=bindparam("so_far"), prompt_tokens=bindparam("asked"), completion_tokens=bindparam("answered"))
    )
    rows = [
        {
            "message": each.message_id,
            "so_far": each.text,
            "asked": each.prompt_tokens,
            "answered": each.completion_tokens,
        }
        for each in progress
    ]
    session.connection().execute(statement, rows)


def lock_orphans(session: Session, *, untouched_since: datetime, limit: int) -> Sequence[tuple[Message, ChatSession]]:
    """Answers that nobody generates any more, with their sessions."""
    found = session.execute(
        select(Message, ChatSession)
        .join(ChatSession, ChatSession.id == Message.session_id)
        .where(Message.state == MessageState.STREAMING, Message.touched_at <= untouched_since)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Message)
    )
    return [(message, owner) for message, owner in found]


def save_completions(session: Session, running: Sequence[RunningCompletion]) -> None:
    """Stores what completions have used so far, and that they are being relayed now."""
    columns = [column.key for column in RunningCompletion.__table__.columns]
    rows = [{name: getattr(each, name) for name in columns} for each in running]
    statement = insert(RunningCompletion)
    changed = {name: statement.excluded[name] for name in ("prompt_tokens", "completion_tokens", "touched_at")}
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), rows)


def silent_completions(session: Session, *, untouched_since: datetime, limit: int) -> Sequence[RunningCompletion]:
    """Those that nobody relays any more."""
    found = select(RunningCompletion).where(RunningCompletion.touched_at <= untouched_since)
    return session.scalars(found.limit(limit)).all()


def forget_completions(session: Session, ids: Iterable[str]) -> int:
    """They are over; how many of them were written down."""
    gone = delete(RunningCompletion).where(RunningCompletion.id.in_(list(ids)))
    return len(session.scalars(gone.returning(RunningCompletion.id)).all())
