"""What is done with usage: take it into the ledger, sum it up, limit it, and hold amounts against the limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_auth.etags import quota_etag, require_unchanged
from espalier_auth.usage import repository
from espalier_auth.usage.calendar import is_time_zone, span
from espalier_auth.usage.errors import InvalidQuota, QuotaExceeded, QuotaExists, QuotaNotFound
from espalier_auth.usage.models import Kind, Period, Quota
from espalier_auth.usage.repository import QuotaFilter
from espalier_common.db import utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_common.visibility import reaches

RETRY_SECONDS = 60.0  # a run ends, or a file is deleted, at some time; unlike a calendar's day nobody knows when
KEPT_AFTER_EXPIRY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Use:
    """A use that was reported; `kind` None when there was none and only a reservation ends."""

    id: str
    kind: Kind | None
    amount: float
    user_id: str
    at: datetime
    model: str = ""
    source: str = ""
    reference: str = ""
    succeeded: bool | None = True
    queue_wait: float | None = None
    reservation_id: str = ""
    estimated: bool = False
    by_model: dict[str, float] | None = None
    """Of bytes that are kept: the whole amount by model, with none as "". None: all of it is of `model`."""


@dataclass(frozen=True, kw_only=True)
class QuotaStatus:
    """A limit and how far it is used up; `reset_at` None when it never begins anew."""

    quota: Quota
    used: float
    reset_at: datetime | None
    name: str = ""
    """Of the user or group that it binds."""


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """Until when it is held, and whether any limit binds the user at all."""

    expires_at: datetime
    limited: bool


def take_into_ledger(session: Session, uses: Sequence[Use]) -> None:
    """Adds uses, each once, and ends their reservations."""
    repository.add_entries(session, [_entry(use, use.kind) for use in uses if use.kind is not None])
    repository.settle(session, {use.reservation_id for use in uses if use.reservation_id}, now=utc_now())


def forget_expired(session: Session) -> None:
    """Forgets reservations whose time was over a day ago."""
    repository.forget_holds(session, before=utc_now() - KEPT_AFTER_EXPIRY)


class Quotas:
    """Limits, and reservations against them."""

    def create(self, session: Session, principal: Principal, quota: Quota) -> QuotaStatus:
        """Sets a limit. Raises InvalidQuota with all that is wrong, QuotaExists."""
        if found := _violations(session, principal, quota):
            raise InvalidQuota(f"This is no limit: {found[0].field} {found[0].description}.", violations=found)
        session.add(quota)
        try:
            session.flush()
        except IntegrityError as error:
            if "fk_quotas_group_id" in str(error):
                wrong = FieldViolation("quota.group_id", "names no group", "GROUP_NOT_FOUND")
                raise InvalidQuota("There is no such group.", violations=[wrong]) from error
            raise QuotaExists(
                "There is a limit of this kind and period already; change that one or delete it."
            ) from error
        return _named(session, quota)

    def list(
        self, session: Session, principal: Principal, wanted: QuotaFilter, page: PageRequest
    ) -> tuple[list[QuotaStatus], str]:
        """One page of the limits that the caller may see, and the token of the next."""
        found: Page[Quota] = repository.list_quotas(session, principal, wanted=wanted, page=page)
        return [_named(session, quota) for quota in found.items], found.next_page_token

    def that_bind(self, session: Session, user_id: str) -> Sequence[QuotaStatus]:
        """The limits of a user and of his groups."""
        return [_named(session, quota) for quota in repository.quotas_of(session, user_id)]

    def change(
        self,
        session: Session,
        principal: Principal,
        quota_id: str,
        *,
        amount: float | None,
        time_zone: str | None,
        etag: str = "",
    ) -> QuotaStatus:
        """Changes what is not None. Raises QuotaNotFound, ChangedMeanwhile, InvalidQuota."""
        quota = self._find(session, principal, quota_id)
        require_unchanged(etag, quota_etag(quota), what="the limit")
        if time_zone is not None and not is_time_zone(time_zone or "UTC"):
            raise InvalidQuota("There is no such time zone.", violations=[_no_time_zone()])
        if amount is not None and (found := _part_of_a_run(quota.kind, amount)):
            raise InvalidQuota(f"This is no limit: {found.field} {found.description}.", violations=[found])
        quota.amount = quota.amount if amount is None else amount
        quota.time_zone = quota.time_zone if time_zone is None else time_zone or "UTC"
        session.flush()
        return _named(session, quota)

    def delete(self, session: Session, principal: Principal, quota_id: str) -> None:
        """Lifts a limit. Raises QuotaNotFound."""
        session.delete(self._find(session, principal, quota_id))

    def reserve(
        self, session: Session, *, reservation_id: str, user_id: str, amounts: Mapping[Kind, float], until: datetime
    ) -> Reserved:
        """Holds the amounts, or raises QuotaExceeded and holds none. The same id again holds them for longer."""
        # From here on nobody else reserves against these limits, until the transaction ends.
        quotas = repository.quotas_of(session, user_id, lock=True)
        if earlier := repository.holds_of(session, reservation_id):
            for hold in earlier:
                hold.expires_at = max(hold.expires_at, until)
            return Reserved(expires_at=max(hold.expires_at for hold in earlier), limited=bool(quotas))
        _refuse_excess(session, quotas, amounts)
        rows = [
            {
                "reservation_id": reservation_id,
                "kind": kind,
                "user_id": user_id,
                "amount": amount,
                "created_at": utc_now(),
                "expires_at": until,
            }
            for kind, amount in amounts.items()
            if amount > 0
        ]
        repository.add_holds(session, rows)
        return Reserved(expires_at=until, limited=bool(quotas))

    def _find(self, session: Session, principal: Principal, quota_id: str) -> Quota:
        quota = repository.find_quota(session, quota_id, lock=True)
        if quota is None or not _may_limit(principal, quota):
            raise QuotaNotFound("quota", quota_id)
        return quota


def _entry(use: Use, kind: Kind | None) -> dict[str, Any]:
    return {
        "id": use.id,
        "kind": kind,
        "amount": use.amount,
        "user_id": use.user_id,
        "model": use.model,
        "source": use.source,
        "reference": use.reference,
        "at": use.at,
        "succeeded": use.succeeded,
        "queue_wait": use.queue_wait,
        "estimated": use.estimated,
        "by_model": use.by_model,
    }


def _status(session: Session, quota: Quota) -> QuotaStatus:
    now = utc_now()
    period = span(quota.period, quota.time_zone, now)
    return QuotaStatus(quota=quota, used=repository.used_and_held(session, quota, period, now), reset_at=period.end)


def _named(session: Session, quota: Quota) -> QuotaStatus:
    return replace(_status(session, quota), name=repository.bound_name(session, quota))


def _refuse_excess(session: Session, quotas: Sequence[Quota], amounts: Mapping[Kind, float]) -> None:
    """Of several limits that would be passed, the one is told that opens last: waiting for another is in vain."""
    passed: list[tuple[QuotaStatus, float]] = []
    for quota in quotas:
        asked = [amounts[kind] for kind in quota.kind.counted if kind in amounts]
        if not asked:
            continue
        status, wanted = _status(session, quota), sum(asked)
        if status.used + wanted > quota.amount or (wanted == 0 and status.used >= quota.amount):
            passed.append((status, wanted))
    if passed:
        status, wanted = max(passed, key=lambda found: _opens(*found))
        raise _exceeded(status, wanted, name=repository.bound_name(session, status.quota))


def _opens(status: QuotaStatus, wanted: float) -> tuple[bool, datetime]:
    """When the limit lets it through: never, at some time that nobody knows, or when it begins anew."""
    return _is_in_vain(status, wanted), status.reset_at or datetime.max.replace(tzinfo=UTC)


def _is_in_vain(status: QuotaStatus, wanted: float) -> bool:
    """More than the whole limit is asked for."""
    return wanted > status.quota.amount or status.quota.amount == 0


def _exceeded(status: QuotaStatus, wanted: float, *, name: str) -> QuotaExceeded:
    quota = status.quota
    which = "your quota" if quota.user_id else f'the quota of the group "{name}"'
    asked = f", {_number(wanted)} more asked for" if wanted else ""
    retry_after = RETRY_SECONDS
    if status.reset_at is not None:
        local = status.reset_at.astimezone(ZoneInfo(quota.time_zone))
        ending = f"It begins anew at {local:%Y-%m-%d %H:%M} ({quota.time_zone})."
        retry_after = max(1.0, (status.reset_at - utc_now()).total_seconds())
    else:
        ending = "Wait until a run has ended." if quota.kind is Kind.CONCURRENT_RUNS else _KEPT
    if _is_in_vain(status, wanted):
        ending = f"{ending} {_IN_VAIN}" if status.reset_at is not None else _IN_VAIN
    return QuotaExceeded(
        f"This is over {which} for {_UNITS[quota.kind]}{_EACH[quota.period]}: "
        f"{_number(status.used)} of {_number(quota.amount)} used or held{asked}. {ending}",
        retry_after=retry_after,
        metadata={
            "quota_id": quota.id,
            "kind": quota.kind.value,
            "limit": f"{quota.amount:.15g}",
            "used": f"{status.used:.15g}",
            "reset_time": status.reset_at.isoformat() if status.reset_at else "",
            **({"group": name} if quota.group_id else {}),
        },
    )


# Only the checkpoints that a run no longer needs go by themselves.
_KEPT = "Ask an administrator for more; a lower save_total_limit lets runs keep fewer checkpoints."
_IN_VAIN = "The whole quota is less than that, so waiting does not help: ask for less, or an administrator for more."
_UNITS = {
    Kind.TOKENS_IN: "tokens",
    Kind.TOKENS_OUT: "tokens of answers",
    Kind.GPU_SECONDS: "GPU-seconds",
    Kind.CPU_SECONDS: "CPU-seconds",
    Kind.STORED_BYTES: "stored bytes",
    Kind.REQUESTS: "requests",
    Kind.CONCURRENT_RUNS: "runs at the same time",
}
_EACH = {Period.NONE: "", Period.DAY: " a day", Period.MONTH: " a month"}


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.2f}"


def _may_limit(principal: Principal, quota: Quota) -> bool:
    """Limits of groups, whose members differ in whose data they are, are for those who reach everybody."""
    return principal.scope == "all" or (quota.user_id is not None and reaches(quota.user_id, principal))


def _violations(session: Session, principal: Principal, quota: Quota) -> list[FieldViolation]:
    found = []
    if (quota.user_id is None) == (quota.group_id is None):
        found.append(FieldViolation("quota.user_id", "or group_id must be given, and not both", "ONE_OF"))
    elif not _may_limit(principal, quota) and quota.user_id is None:
        found.append(FieldViolation("quota.group_id", "names no group", "GROUP_NOT_FOUND"))
    elif quota.user_id is not None and not (
        _may_limit(principal, quota) and repository.user_exists(session, quota.user_id)
    ):
        found.append(FieldViolation("quota.user_id", "names no user", "USER_NOT_FOUND"))
    if quota.kind.is_level and quota.period is not Period.NONE:
        description = f"must be left out: {_UNITS[quota.kind]} are limited at any time, not by day or month"
        found.append(FieldViolation("quota.period", description, "PERIOD"))
    if not quota.kind.is_level and quota.period is Period.NONE:
        found.append(FieldViolation("quota.period", f"is needed: {_UNITS[quota.kind]} by day or by month", "PERIOD"))
    if part := _part_of_a_run(quota.kind, quota.amount):
        found.append(part)
    if not is_time_zone(quota.time_zone):
        found.append(_no_time_zone())
    return found


def _part_of_a_run(kind: Kind, amount: float) -> FieldViolation | None:
    if kind is not Kind.CONCURRENT_RUNS or amount.is_integer():
        return None
    return FieldViolation("quota.amount", "must be a whole number: runs are counted", "WHOLE_NUMBER")


def _no_time_zone() -> FieldViolation:
    return FieldViolation("quota.time_zone", 'names no time zone; such as "UTC" or "Europe/Berlin"', "TIME_ZONE")
