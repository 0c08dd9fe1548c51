"""UsageService and QuotaService: proto in, use case, proto out. One call is one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty
from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import Session

from espalier.auth.v1 import usage_pb2, usage_pb2_grpc
from espalier_auth.errors import ForPeopleOnly
from espalier_auth.etags import quota_etag
from espalier_auth.usage import repository
from espalier_auth.usage.errors import InvalidPeriod, InvalidQuota, InvalidReservation
from espalier_auth.usage.flow import UsageFilter, Users
from espalier_auth.usage.models import Kind, Period, Quota
from espalier_auth.usage.service import Quotas, QuotaStatus
from espalier_auth.usage.statistics import Figure, statistics
from espalier_common.db import Database, utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identifiers import is_uuid
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp
from espalier_common.visibility import private, visible

MAX_ROWS = 10_000
DEFAULT_PERIOD = timedelta(days=30)
MAX_PERIOD = timedelta(days=3660)
YEARS = range(1990, 2200)
DEFAULT_HOLD = timedelta(days=1)
_KINDS = {kind: usage_pb2.UsageKind.Value(f"USAGE_KIND_{kind.value}") for kind in Kind}
_GRAINS = {usage_pb2.USAGE_GRAIN_HOUR: "hour", usage_pb2.USAGE_GRAIN_DAY: "day"}


def servicers(database: Database, paginator: Paginator) -> list[ServicerEntry]:
    """What the server serves of usage."""
    services = usage_pb2.DESCRIPTOR.services_by_name
    quota_rpc = QuotaRpc(database, quotas=Quotas(), paginator=paginator)
    return [
        (usage_pb2_grpc.add_UsageServiceServicer_to_server, UsageRpc(database), services["UsageService"]),
        (usage_pb2_grpc.add_QuotaServiceServicer_to_server, quota_rpc, services["QuotaService"]),
    ]


class UsageRpc(usage_pb2_grpc.UsageServiceServicer):
    """The servicer of UsageService."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ListUsage(self, request: usage_pb2.ListUsageRequest, context: object) -> usage_pb2.ListUsageResponse:
        principal = current_principal()

        def users(user_id: Any) -> ColumnElement[bool]:
            seen = visible(user_id, principal)
            return and_(seen, user_id == request.user_id) if request.user_id else seen

        with self._database.transaction() as session:
            return _list(session, request, users, group_id=request.group_id)

    def ListMyUsage(self, request: usage_pb2.ListMyUsageRequest, context: object) -> usage_pb2.ListUsageResponse:
        users = partial(private, principal=current_principal())
        with self._database.transaction() as session:
            return _list(session, request, users, group_id="")

    def GetStatistics(self, request: usage_pb2.GetStatisticsRequest, context: object) -> usage_pb2.Statistics:
        start, end = _period(request)
        users = partial(visible, principal=current_principal())
        with self._database.transaction() as session:
            found = statistics(session, start=start, end=end, users=users)
            names = repository.user_names(session, (user_id for user_id, _ in found.top_users))
        return usage_pb2.Statistics(
            active_users=_figure(found.active_users),
            requests=_figure(found.requests),
            tokens=_figure(found.tokens),
            gpu_hours=_figure(found.gpu_hours),
            success_rate=_figure(found.success_rate),
            queue_wait_seconds=_figure(found.queue_wait_seconds),
            top_users=_ranked(found.top_users, names),
            top_models=_ranked(found.top_models, {}),
            trained_tokens=_figure(found.trained_tokens),
        )


class QuotaRpc(usage_pb2_grpc.QuotaServiceServicer):
    """The servicer of QuotaService."""

    def __init__(self, database: Database, *, quotas: Quotas, paginator: Paginator) -> None:
        self._database = database
        self._quotas = quotas
        self._paginator = paginator

    def CreateQuota(self, request: usage_pb2.CreateQuotaRequest, context: object) -> usage_pb2.Quota:
        wanted = request.quota
        quota = Quota(
            user_id=wanted.user_id or None,
            group_id=wanted.group_id or None,
            kind=_kind(wanted.kind),
            amount=wanted.amount,
            period=Period(_period_name(wanted.period)),
            time_zone=wanted.time_zone or "UTC",
        )
        with self._database.transaction() as session:
            return _to_quota(self._quotas.create(session, current_principal(), quota))

    def ListQuotas(self, request: usage_pb2.ListQuotasRequest, context: object) -> usage_pb2.ListQuotasResponse:
        page = self._paginator.read(request)
        wanted = repository.QuotaFilter(
            user_id=request.user_id,
            group_id=request.group_id,
            kind=_kind(request.kind) if request.kind else None,
        )
        with self._database.transaction() as session:
            found, token = self._quotas.list(session, current_principal(), wanted, page)
        return usage_pb2.ListQuotasResponse(quotas=map(_to_quota, found), next_page_token=token)

    def ListMyQuotas(self, request: usage_pb2.ListMyQuotasRequest, context: object) -> usage_pb2.ListQuotasResponse:
        principal = current_principal()
        if principal.kind != "user":
            raise ForPeopleOnly
        with self._database.transaction() as session:
            found = self._quotas.that_bind(session, principal.subject)
        return usage_pb2.ListQuotasResponse(quotas=map(_to_quota, found))

    def UpdateQuota(self, request: usage_pb2.UpdateQuotaRequest, context: object) -> usage_pb2.Quota:
        paths = set(request.update_mask.paths)
        if not paths or paths - {"amount", "time_zone"}:
            wrong = FieldViolation("update_mask", "must name amount, time_zone or both and nothing else", "MASK")
            raise InvalidQuota("Only the amount and the time zone of a limit can change.", violations=[wrong])
        with self._database.transaction() as session:
            changed = self._quotas.change(
                session,
                current_principal(),
                _quota_id(request.quota),
                amount=request.quota.amount if "amount" in paths else None,
                time_zone=request.quota.time_zone if "time_zone" in paths else None,
                etag=request.quota.etag,
            )
            return _to_quota(changed)

    def DeleteQuota(self, request: usage_pb2.DeleteQuotaRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._quotas.delete(session, current_principal(), request.quota_id)
        return Empty()

    def ReserveUsage(self, request: usage_pb2.ReserveUsageRequest, context: object) -> usage_pb2.Reservation:
        amounts: dict[Kind, float] = {}
        for index, amount in enumerate(request.amounts):
            if not amount.kind:
                wrong = FieldViolation(f"amounts[{index}].kind", "is required", "REQUIRED")
                raise InvalidReservation("An amount without a kind.", violations=[wrong])
            kind = _kind(amount.kind)
            amounts[kind] = amounts.get(kind, 0.0) + amount.amount
        until = _moment(request, "expire_time") or utc_now() + DEFAULT_HOLD
        with self._database.transaction() as session:
            held = self._quotas.reserve(
                session,
                reservation_id=request.reservation_id,
                user_id=request.user_id,
                amounts=amounts,
                until=until,
            )
        return usage_pb2.Reservation(
            reservation_id=request.reservation_id, expire_time=timestamp(held.expires_at), limited=held.limited
        )


def _list(session: Session, request: Any, mine: Users, *, group_id: str) -> usage_pb2.ListUsageResponse:
    start, end = _period(request)
    dimensions = _dimensions(request.group_by)
    wanted = UsageFilter(
        start=start,
        end=end,
        users=mine,
        group_id=group_id,
        model=request.model,
        kind=_kind(request.kind) if request.kind else None,
    )
    grain = _GRAINS.get(request.grain, "")
    found = repository.sums(session, wanted, grain=grain, group_by=dimensions, limit=MAX_ROWS + 1)
    rows = found[:MAX_ROWS]
    ids = {name: {row._mapping[name] for row in rows} for name in dimensions}
    names = {
        "user": repository.user_names(session, ids.get("user", ())),
        "group": repository.group_names(session, ids.get("group", ()), current_principal()),
    }
    told = _to_rows(rows, dimensions, names)
    return usage_pb2.ListUsageResponse(rows=told, truncated=len(found) > MAX_ROWS)


def _to_rows(
    rows: Sequence[Any], dimensions: Sequence[str], names: Mapping[str, Mapping[str, str]]
) -> Iterator[usage_pb2.UsageRow]:
    """The rows come as (step, kind, amount, estimated, dimension …). There may be many of them, of few times."""
    times = {step: timestamp(step) for step in {row[0] for row in rows}}
    fields = {"user": "user_id", "group": "group_id", "model": "model", "source": "source"}
    for step, kind, amount, estimated, *keys in rows:
        told: dict[str, Any] = {}
        for name, key in zip(dimensions, keys, strict=True):
            told[fields[name]] = key
            if name in names:
                told[f"{name}_name"] = names[name].get(key, "")
        yield usage_pb2.UsageRow(time=times[step], kind=_KINDS[kind], amount=amount, estimated=estimated, **told)


def _ranked(found: Sequence[tuple[str, float]], names: Mapping[str, str]) -> list[usage_pb2.Ranked]:
    return [usage_pb2.Ranked(name=name, amount=amount, label=names.get(name, name)) for name, amount in found]


def _dimensions(names: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(names))
    wrong = [
        FieldViolation(f"group_by[{index}]", "is none of user, group, model and source", "UNKNOWN_DIMENSION")
        for index, name in enumerate(names)
        if name not in repository.DIMENSIONS
    ]
    if wrong:
        raise InvalidPeriod(
            f"Usage cannot be told apart so: {wrong[0].field} {wrong[0].description}.", violations=wrong
        )
    return found


def _period(request: Any) -> tuple[datetime, datetime]:
    """The period asked for. Raises InvalidPeriod."""
    end = _moment(request, "end_time") or utc_now()
    start = _moment(request, "start_time") or end - DEFAULT_PERIOD
    if not start < end or end - start > MAX_PERIOD:
        wrong = FieldViolation("start_time", "must be before end_time, by ten years at most", "PERIOD")
        raise InvalidPeriod("The period is empty or too long.", violations=[wrong])
    return start, end


def _moment(request: Any, name: str) -> datetime | None:
    """The moment in this field; None when it is unset. Raises InvalidPeriod for one that no calendar of ours has."""
    if not request.HasField(name):
        return None
    try:
        moment: datetime = getattr(request, name).ToDatetime(UTC)
    except (ValueError, OverflowError):
        moment = datetime.min.replace(tzinfo=UTC)
    if moment.year not in YEARS:
        wrong = FieldViolation(name, f"must be a time from {YEARS.start} to {YEARS.stop - 1}", "TIME")
        raise InvalidPeriod(f"The time is of no use: {name} {wrong.description}.", violations=[wrong])
    return moment


def _quota_id(quota: usage_pb2.Quota) -> str:
    if not is_uuid(quota.id):
        wrong = FieldViolation("quota.id", "must be the UUID of the limit", "UUID")
        raise InvalidQuota("The limit to change is not named.", violations=[wrong])
    return quota.id


def _kind(number: int) -> Kind:
    """The kind of the contract's number. Raises InvalidQuota for one that it does not have."""
    try:
        return Kind(usage_pb2.UsageKind.Name(usage_pb2.UsageKind.ValueType(number)).removeprefix("USAGE_KIND_"))
    except ValueError as error:
        wrong = FieldViolation("kind", f"{number} is no kind of use", "UNKNOWN_KIND")
        raise InvalidQuota("There is no such kind of use.", violations=[wrong]) from error


def _period_name(number: int) -> str:
    if number in (usage_pb2.QUOTA_PERIOD_DAY, usage_pb2.QUOTA_PERIOD_MONTH):
        return usage_pb2.QuotaPeriod.Name(usage_pb2.QuotaPeriod.ValueType(number)).removeprefix("QUOTA_PERIOD_")
    return Period.NONE


def _to_quota(status: QuotaStatus) -> usage_pb2.Quota:
    quota = status.quota
    period = "UNSPECIFIED" if quota.period is Period.NONE else quota.period.value
    return usage_pb2.Quota(
        id=quota.id,
        user_id=quota.user_id or "",
        group_id=quota.group_id or "",
        kind=usage_pb2.UsageKind.Value(f"USAGE_KIND_{quota.kind.name}"),
        amount=quota.amount,
        period=usage_pb2.QuotaPeriod.Value(f"QUOTA_PERIOD_{period}"),
        time_zone=quota.time_zone,
        used=status.used,
        reset_time=timestamp(status.reset_at),
        etag=quota_etag(quota),
        user_name=status.name if quota.user_id else "",
        group_name=status.name if quota.group_id else "",
    )


def _figure(figure: Figure) -> usage_pb2.Figure:
    return usage_pb2.Figure(value=figure.value, before=figure.before)
