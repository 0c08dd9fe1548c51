"""The edge of the audit log: proto in, use case, proto out."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import cache

from google.protobuf.timestamp_pb2 import Timestamp

from espalier.auth.v1 import audit_pb2, audit_pb2_grpc
from espalier_auth.audit import repository, search
from espalier_auth.audit.kept_head import KeptHead
from espalier_auth.audit.models import START, AuditEntry, Head, Result, split_words
from espalier_auth.audit.search import Filter
from espalier_auth.audit.service import check_chain
from espalier_common.db import Database
from espalier_common.errors import FieldViolation, InvalidArgument
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.permissions import all_services
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp

EXPORT_PAGE = 500

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def servicers(database: Database, *, kept_head: KeptHead, paginator: Paginator) -> list[ServicerEntry]:
    """What the server serves of the audit log."""
    rpc = AuditRpc(database, kept_head=kept_head, paginator=paginator)
    descriptor = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]
    return [(audit_pb2_grpc.add_AuditServiceServicer_to_server, rpc, descriptor)]


class AuditRpc(audit_pb2_grpc.AuditServiceServicer):
    """Reads the audit log and checks it. Nothing here changes it."""

    def __init__(self, database: Database, *, kept_head: KeptHead, paginator: Paginator) -> None:
        self._database = database
        self._kept_head = kept_head
        self._paginator = paginator

    def ListAuditEvents(
        self, request: audit_pb2.ListAuditEventsRequest, context: object
    ) -> audit_pb2.ListAuditEventsResponse:
        wanted, page = _filter(request), self._paginator.read(request)
        with self._database.transaction() as session:
            found = search.list_events(session, wanted, page)
        return audit_pb2.ListAuditEventsResponse(
            events=[to_event(entry) for entry in found.items], next_page_token=found.next_page_token
        )

    async def ExportAuditEvents(
        self, request: audit_pb2.ExportAuditEventsRequest, context: object
    ) -> AsyncIterator[audit_pb2.AuditEvent]:
        wanted = _filter(request)
        after: tuple[datetime, int] | None = None
        while True:
            entries = await asyncio.to_thread(self._read, wanted, after)
            for entry in entries:
                yield to_event(entry)
            if len(entries) < EXPORT_PAGE:
                return
            after = (entries[-1].time, entries[-1].sequence)

    def VerifyAuditChain(
        self, request: audit_pb2.VerifyAuditChainRequest, context: object
    ) -> audit_pb2.AuditVerification:
        start = Head.read(request.start) if request.start else START
        remembered = Head.read(request.head) if request.head else self._kept_head.read()
        with self._database.transaction() as session:
            finding = check_chain(session, start=start, remembered=remembered)
            newest = repository.find_head(session)
        return audit_pb2.AuditVerification(
            intact=finding.broken == 0,
            checked=finding.checked,
            broken_sequence=finding.broken,
            message=finding.message,
            head=str(newest) if newest.sequence else "",
            next="" if finding.is_end else str(finding.reached),
        )

    def _read(self, wanted: Filter, after: tuple[datetime, int] | None) -> Sequence[AuditEntry]:
        with self._database.transaction() as session:
            return search.read_events(session, wanted, after=after, limit=EXPORT_PAGE)


def to_event(entry: AuditEntry) -> audit_pb2.AuditEvent:
    """The event as it goes over the wire."""
    return audit_pb2.AuditEvent(
        id=entry.id,
        sequence=entry.sequence,
        time=timestamp(entry.time),
        service=entry.service,
        actor_id=entry.actor_id,
        actor_name=entry.actor_name,
        action=entry.action,
        target=entry.target,
        result=audit_pb2.AuditResult.Value(f"AUDIT_RESULT_{entry.result}"),
        reason=entry.reason,
        address=entry.address,
        request_id=entry.request_id,
        before=entry.before,
        after=entry.after,
        hash=bytes(entry.hash).hex(),
        api_key_id=entry.api_key_id,
    )


def _filter(request: audit_pb2.ListAuditEventsRequest | audit_pb2.ExportAuditEventsRequest) -> Filter:
    name = audit_pb2.AuditResult.Name(request.result).removeprefix("AUDIT_RESULT_")
    caller = current_principal()
    return Filter(
        actor=_text(request.actor, "actor"),
        action=_whole_action(_text(request.action, "action")),
        target=_text(request.target, "target"),
        result=Result(name) if request.result else None,
        address=_text(request.address, "address").strip().lower(),
        request_id=_text(request.request_id, "request_id").strip(),
        start=_moment(request.start_time) if request.HasField("start_time") else None,
        end=_moment(request.end_time) if request.HasField("end_time") else None,
        words=tuple(split_words(_text(request.query, "query"))),
        within=None if caller.scope == "all" else caller.peers | {caller.subject},
    )


def _text(text: str, field: str) -> str:
    if "\x00" in text:
        found = FieldViolation(field, "must not hold the character NUL", "CHARACTER")
        raise InvalidArgument("The request is not valid: text must not hold the character NUL.", violations=[found])
    return text


def _whole_action(text: str) -> str:
    """`UserService/Upd`, as lists show it, with the package that events have: `espalier.auth.v1.UserService/Upd`."""
    service, slash, rest = text.partition("/")
    return _packaged().get(service, service) + slash + rest


@cache
def _packaged() -> dict[str, str]:
    return {service.name: service.full_name for service in all_services()}


def _moment(given: Timestamp) -> datetime:
    """The moment; one beyond what a calendar holds stands for its end."""
    if given.seconds < _FIRST.timestamp():
        return _FIRST
    return min(given.ToDatetime(UTC), _LAST) if given.seconds < _LAST.timestamp() else _LAST
