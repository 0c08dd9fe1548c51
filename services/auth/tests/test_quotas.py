"""Limits hold whatever races, begin anew by the calendar, and a refusal says which, how much and until when."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import pytest

from espalier.auth.v1 import access_pb2, access_pb2_grpc, resources_pb2, usage_pb2_grpc
from espalier.auth.v1 import usage_pb2 as pb
from espalier_auth.access.models import Group
from espalier_auth.models import GroupMember
from espalier_auth.usage.calendar import span
from espalier_auth.usage.events import USAGE_RECORDED, take_events
from espalier_auth.usage.models import Period
from espalier_common.bus import Event
from espalier_common.db import utc_now
from espalier_common.errors import EspalierError
from espalier_common.rpc.status import from_rpc_error
from espalier_common.rpc.timestamps import timestamp

TOKENS, RUNS, STORED = pb.USAGE_KIND_TOKENS_IN, pb.USAGE_KIND_CONCURRENT_RUNS, pb.USAGE_KIND_STORED_BYTES


def zone_at_noon() -> str:
    """A zone in which it is about noon: no day and no month begins anew while a test runs, whenever that is."""
    # These names have their signs the other way round.
    return f"Etc/GMT{utc_now().hour - 12:+d}"


class Desk:
    """The calls that the tests make, as an administrator."""

    def __init__(self, auth: Any, stub: Any) -> None:
        self.auth = auth
        self.stub = stub

    async def limit(self, **fields: Any) -> pb.Quota:
        fields = {"kind": TOKENS, "period": pb.QUOTA_PERIOD_DAY, "time_zone": zone_at_noon()} | fields
        quota: pb.Quota = await self.stub.CreateQuota(pb.CreateQuotaRequest(quota=pb.Quota(**fields)))
        return quota

    async def reserve(self, user_id: str, amount: float, *, kind: Any = TOKENS, id: str = "", **fields: Any) -> Any:
        request = pb.ReserveUsageRequest(
            reservation_id=id or str(uuid.uuid4()),
            user_id=user_id,
            amounts=[pb.UsageAmount(kind=kind, amount=amount)],
            **fields,
        )
        return await self.stub.ReserveUsage(request)

    def report(self, user_id: str, amount: float, *, kind: Any = TOKENS, **fields: str) -> None:
        message = pb.UsageRecorded(
            id=str(uuid.uuid4()), kind=kind, amount=amount, user_id=user_id, time=timestamp(utc_now()), **fields
        )
        with self.auth.database.transaction() as session:
            take_events(session, [Event(USAGE_RECORDED, message.SerializeToString(), str(uuid.uuid4()), utc_now())])

    async def used(self) -> list[float]:
        return [quota.used for quota in (await self.stub.ListQuotas(pb.ListQuotasRequest())).quotas]

    def group(self, *user_ids: str) -> str:
        with self.auth.database.transaction() as session:
            group = Group(name=f"group-{uuid.uuid4()}", description="", roles=[])
            session.add(group)
            session.flush()
            session.add_all([GroupMember(group_id=group.id, user_id=user_id) for user_id in user_ids])
            return str(group.id)


@pytest.fixture
async def desk(auth: Any) -> Desk:
    channel = auth.channel((await auth.login()).access_token)
    return Desk(auth, usage_pb2_grpc.QuotaServiceStub(channel))


@pytest.fixture
async def mia(auth: Any) -> str:
    return str((await auth.create_user("mia", roles=["tester"])).id)


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def test_of_20_reservations_at_once_for_what_is_left_for_one_exactly_one_is_accepted(desk: Any, mia: str) -> None:
    await desk.limit(user_id=mia, amount=100)
    desk.report(mia, 99)

    answers = await asyncio.gather(*(desk.reserve(mia, 1) for _ in range(20)), return_exceptions=True)

    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refused) == 19
    assert {from_rpc_error(error).reason for error in refused} == {"QUOTA_EXCEEDED"}
    assert await desk.used() == [100]


async def test_a_refusal_says_which_quota_how_much_and_when_it_begins_anew(desk: Any, mia: str) -> None:
    quota = await desk.limit(user_id=mia, amount=1000)
    desk.report(mia, 990)
    error = await refusal(desk.reserve(mia, 20))

    assert error.code == "RESOURCE_EXHAUSTED"
    assert "your quota for tokens a day: 990 of 1,000 used or held, 20 more asked for." in error.message
    assert "It begins anew at " in error.message
    assert error.message.endswith(f" 00:00 ({quota.time_zone}).")
    assert (error.metadata["quota_id"], error.metadata["kind"]) == (quota.id, "TOKENS_IN")
    reset = datetime.fromisoformat(error.metadata["reset_time"])
    assert reset == quota.reset_time.ToDatetime(UTC)
    assert error.retry_after == pytest.approx((reset - utc_now()).total_seconds(), abs=30)


async def test_what_is_settled_counts_as_it_was_used_and_frees_what_was_held(desk: Any, mia: str) -> None:
    await desk.limit(user_id=mia, amount=100)
    await desk.reserve(mia, 60, id="answer-1")
    assert (await refusal(desk.reserve(mia, 60))).reason == "QUOTA_EXCEEDED"

    for _ in range(2):
        desk.report(mia, 5, reservation_id="answer-1")

    assert await desk.used() == [10]
    assert (await desk.reserve(mia, 60)).limited


async def test_the_same_reservation_again_is_held_for_longer_and_counts_once(desk: Any, mia: str) -> None:
    await desk.limit(user_id=mia, amount=1, kind=RUNS, period=0)
    soon, later = utc_now() + timedelta(hours=1), utc_now() + timedelta(hours=2)
    await desk.reserve(mia, 1, kind=RUNS, id="run-1-a1", expire_time=timestamp(soon))

    again = await desk.reserve(mia, 1, kind=RUNS, id="run-1-a1", expire_time=timestamp(later))

    assert again.expire_time.ToDatetime(UTC) == later.replace(microsecond=later.microsecond)
    assert await desk.used() == [1]
    desk.report(mia, 0, kind=0, reservation_id="run-1-a1")
    await desk.reserve(mia, 1, kind=RUNS, id="run-1-a1", expire_time=timestamp(later))
    assert await desk.used() == [0]  # settled is settled: a late renewal does not bring it back


async def test_a_reservation_that_nobody_settles_expires(desk: Any, mia: str) -> None:
    await desk.limit(user_id=mia, amount=1, kind=RUNS, period=0)
    await desk.reserve(mia, 1, kind=RUNS, expire_time=timestamp(utc_now() - timedelta(seconds=1)))

    assert await desk.used() == [0]
    assert await desk.reserve(mia, 1, kind=RUNS)
    error = await refusal(desk.reserve(mia, 1, kind=RUNS))
    assert error.message.endswith("Wait until a run has ended.")


async def test_an_amount_of_0_asks_whether_anything_is_left(desk: Any, mia: str) -> None:
    await desk.limit(user_id=mia, amount=3600, kind=pb.USAGE_KIND_GPU_SECONDS, period=pb.QUOTA_PERIOD_MONTH)
    assert await desk.reserve(mia, 0, kind=pb.USAGE_KIND_GPU_SECONDS)
    desk.report(mia, 3600, kind=pb.USAGE_KIND_GPU_SECONDS)

    assert (
        "your quota for GPU-seconds a month: 3,600 of 3,600 used or held."
        in (await refusal(desk.reserve(mia, 0, kind=pb.USAGE_KIND_GPU_SECONDS))).message
    )


async def test_stored_bytes_are_limited_by_the_newest_amount(desk: Any, mia: str) -> None:
    await desk.limit(user_id=mia, amount=100, kind=STORED, period=0)
    desk.report(mia, 90, kind=STORED)
    error = await refusal(desk.reserve(mia, 20, kind=STORED))
    assert "Ask an administrator for more" in error.message
    assert error.retry_after

    desk.report(mia, 50, kind=STORED)
    assert await desk.reserve(mia, 20, kind=STORED)
    assert await desk.used() == [70]


async def test_a_groups_quota_binds_its_members_together(desk: Any, mia: str) -> None:
    ben = str((await desk.auth.create_user("ben", roles=["tester"])).id)
    eve = str((await desk.auth.create_user("eve", roles=["tester"])).id)
    quota = await desk.limit(group_id=desk.group(mia, ben), amount=100)
    desk.report(mia, 60)
    desk.report(eve, 1000)

    await desk.reserve(ben, 40)

    error = await refusal(desk.reserve(mia, 1))
    assert (
        f'over the quota of the group "{quota.group_name}" for tokens a day: 100 of 100 used or held' in error.message
    )
    assert (error.metadata["quota_id"], error.metadata["group"]) == (quota.id, quota.group_name)
    assert not (await desk.reserve(eve, 1000)).limited
    token = (await desk.auth.login("ben", "a quiet green lamp")).access_token
    mine = await usage_pb2_grpc.QuotaServiceStub(desk.auth.channel(token)).ListMyQuotas(pb.ListMyQuotasRequest())
    assert [(each.used, each.amount, each.group_name) for each in mine.quotas] == [(100, 100, quota.group_name)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "quota.user_id"),
        ({"user_id": "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"}, "quota.user_id"),
        ({"group_id": "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"}, "quota.group_id"),
        ({"user_id": "mia", "period": 0}, "quota.period"),
        ({"user_id": "mia", "kind": RUNS}, "quota.period"),
        ({"user_id": "mia", "time_zone": "Mars/Olympus"}, "quota.time_zone"),
        ({"user_id": "mia", "time_zone": "../../etc/passwd"}, "quota.time_zone"),
        ({"user_id": "mia", "amount": -1}, "quota.amount"),
        ({"user_id": "mia", "kind": RUNS, "period": 0, "amount": 1.5}, "quota.amount"),
        ({"user_id": "mia", "kind": 0}, "quota.kind"),
        ({"user_id": "mia", "kind": 99}, "quota.kind"),
    ],
)
async def test_what_is_no_limit_is_refused_with_the_field(
    desk: Any, mia: str, fields: dict[str, Any], field: str
) -> None:
    named = fields | ({"user_id": mia} if fields.get("user_id") == "mia" else {})
    error = await refusal(desk.limit(**named))

    assert error.code == "INVALID_ARGUMENT"
    assert field in [found.field for found in error.violations]


async def test_a_limit_is_set_once_changed_and_lifted(desk: Any, mia: str) -> None:
    quota = await desk.limit(user_id=mia, amount=10)
    assert (await refusal(desk.limit(user_id=mia, amount=20))).reason == "QUOTA_EXISTS"

    update = pb.UpdateQuotaRequest(quota=pb.Quota(id=quota.id, amount=20, time_zone="Asia/Tokyo"))
    update.update_mask.paths.extend(["amount", "time_zone"])
    changed = await desk.stub.UpdateQuota(update)
    assert (changed.amount, changed.time_zone) == (20, "Asia/Tokyo")

    # Who saw it before does not undo what changed since.
    update.quota.etag = quota.etag
    assert (await refusal(desk.stub.UpdateQuota(update))).reason == "CHANGED_MEANWHILE"
    update.quota.etag = changed.etag
    assert (await desk.stub.UpdateQuota(update)).etag == changed.etag

    await desk.stub.DeleteQuota(pb.DeleteQuotaRequest(quota_id=quota.id))
    assert (await refusal(desk.stub.DeleteQuota(pb.DeleteQuotaRequest(quota_id=quota.id)))).reason == "QUOTA_NOT_FOUND"
    assert await desk.used() == []


@pytest.mark.parametrize(
    ("period", "zone", "now", "start", "end"),
    [
        ("DAY", "UTC", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
        # Summer time begins: a day of 23 hours; it ends: one of 25.
        ("DAY", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("DAY", "Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        # The clock jumps over midnight: the day begins at the jump.
        ("DAY", "America/Asuncion", "2023-10-01T12:00", "2023-10-01T04:00", "2023-10-02T03:00"),
        ("MONTH", "Europe/Berlin", "2026-03-31T21:59", "2026-02-28T23:00", "2026-03-31T22:00"),
        ("MONTH", "Europe/Berlin", "2026-03-31T22:00", "2026-03-31T22:00", "2026-04-30T22:00"),
        ("MONTH", "Pacific/Auckland", "2026-12-31T12:00", "2026-12-31T11:00", "2027-01-31T11:00"),
        # Zones that are half an hour or three quarters off, and one whose summer time is half an hour.
        ("DAY", "Asia/Kolkata", "2026-11-24T18:29", "2026-11-23T18:30", "2026-11-24T18:30"),
        ("DAY", "Asia/Kathmandu", "2026-11-24T18:15", "2026-11-24T18:15", "2026-11-25T18:15"),
        ("DAY", "Australia/Lord_Howe", "2026-04-04T18:00", "2026-04-04T13:00", "2026-04-05T13:30"),
        ("MONTH", "Asia/Kolkata", "2028-02-29T18:29", "2028-01-31T18:30", "2028-02-29T18:30"),
        ("MONTH", "UTC", "2027-02-28T23:59", "2027-02-01T00:00", "2027-03-01T00:00"),
    ],
)
def test_days_and_months_are_those_of_the_time_zone(period: str, zone: str, now: str, start: str, end: str) -> None:
    found = span(Period(period), zone, datetime.fromisoformat(now).replace(tzinfo=UTC))

    assert found.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert found.end == datetime.fromisoformat(end).replace(tzinfo=UTC)


async def test_who_asks_for_more_than_the_whole_limit_is_not_told_to_wait(desk: Desk, mia: str) -> None:
    await desk.limit(user_id=mia, amount=10)
    await desk.limit(user_id=mia, amount=0, kind=RUNS, period=0)

    in_vain = [await refusal(desk.reserve(mia, 20)), await refusal(desk.reserve(mia, 1, kind=RUNS))]

    assert {error.message.rpartition(": ")[0].rpartition(". ")[2] for error in in_vain} == {
        "The whole quota is less than that, so waiting does not help"
    }
    assert "It begins anew at" in in_vain[0].message
    assert "Wait until a run has ended." not in in_vain[1].message


async def test_a_limit_that_is_lowered_holds_for_what_begins_and_not_for_what_runs(desk: Desk, mia: str) -> None:
    quota = await desk.limit(user_id=mia, amount=2, kind=RUNS, period=0)
    until = timestamp(utc_now() + timedelta(hours=1))
    for name in ("run-1", "run-2"):
        await desk.reserve(mia, 1, kind=RUNS, id=name, expire_time=until)
    lowered = pb.UpdateQuotaRequest(quota=pb.Quota(id=quota.id, amount=1))
    lowered.update_mask.paths.append("amount")
    await desk.stub.UpdateQuota(lowered)

    assert (await desk.reserve(mia, 1, kind=RUNS, id="run-1", expire_time=until)).limited
    assert "2 of 1 used or held" in (await refusal(desk.reserve(mia, 1, kind=RUNS))).message
    desk.report(mia, 0, kind=0, reservation_id="run-2")
    assert "1 of 1 used or held" in (await refusal(desk.reserve(mia, 1, kind=RUNS))).message
    desk.report(mia, 0, kind=0, reservation_id="run-1")
    assert await desk.reserve(mia, 1, kind=RUNS)


async def test_what_a_training_trains_on_is_in_the_ledger_and_counts_against_no_limit_of_tokens(
    desk: Desk, mia: str
) -> None:
    await desk.limit(user_id=mia, amount=100)
    desk.report(mia, 1_000_000, source="training")
    desk.report(mia, 60, source="chat")

    assert await desk.used() == [60]
    assert await desk.reserve(mia, 40)
    channel = desk.auth.channel((await desk.auth.login()).access_token)
    wanted = pb.ListUsageRequest(user_id=mia, group_by=["user", "source"])
    rows = (await usage_pb2_grpc.UsageServiceStub(channel).ListUsage(wanted)).rows
    assert [(row.user_name, row.source, row.amount) for row in rows] == [
        ("mia", "chat", 60), ("mia", "training", 1_000_000),
    ]  # fmt: skip


async def test_only_services_and_administrators_reserve(auth: Any, mia: str) -> None:
    channel = auth.channel((await auth.login("mia", "a quiet green lamp")).access_token)
    stub = usage_pb2_grpc.QuotaServiceStub(channel)
    error: EspalierError = await refusal(stub.ReserveUsage(pb.ReserveUsageRequest(reservation_id="1", user_id=mia)))

    assert error.metadata["permission"] == "auth.usage.reserve"


async def test_limits_are_found_by_whom_and_what_they_bind(desk: Desk, mia: str) -> None:
    group_id = desk.group(mia)
    of_user = await desk.limit(user_id=mia, amount=10)
    of_group = await desk.limit(group_id=group_id, amount=10)

    async def found(**wanted: Any) -> list[str]:
        return [quota.id for quota in (await desk.stub.ListQuotas(pb.ListQuotasRequest(**wanted))).quotas]

    assert await found(user_id=mia) == [of_user.id]
    assert await found(group_id=group_id) == [of_group.id]
    assert await found(kind=of_user.kind) == [of_user.id, of_group.id]
    assert await found(kind=pb.USAGE_KIND_GPU_SECONDS) == []


async def test_who_reaches_only_his_own_sees_and_limits_nobody_else(desk: Desk, mia: str) -> None:
    quota = await desk.limit(user_id=mia, amount=10)
    channel = desk.auth.channel((await desk.auth.login()).access_token)
    permissions = [f"auth.quotas.{verb}" for verb in ("create", "list", "update", "delete")] + ["auth.statistics.get"]
    role = resources_pb2.Role(name="self-keeper", permissions=permissions, scope="own")
    await access_pb2_grpc.RoleServiceStub(channel).CreateRole(access_pb2.CreateRoleRequest(role=role))
    await desk.auth.create_user("keeper", roles=["self-keeper"])
    keeper = desk.auth.channel((await desk.auth.login("keeper", "a quiet green lamp")).access_token)
    his = usage_pb2_grpc.QuotaServiceStub(keeper)
    desk.report(mia, 5)

    assert list((await his.ListQuotas(pb.ListQuotasRequest())).quotas) == []
    assert (await refusal(his.DeleteQuota(pb.DeleteQuotaRequest(quota_id=quota.id)))).reason == "QUOTA_NOT_FOUND"
    wanted: dict[str, Any] = {"kind": TOKENS, "period": pb.QUOTA_PERIOD_MONTH, "amount": 1}
    binds: list[dict[str, Any]] = [{"user_id": mia}, {"group_id": desk.group(mia)}]
    for names in binds:
        error = await refusal(his.CreateQuota(pb.CreateQuotaRequest(quota=pb.Quota(**wanted, **names))))
        assert error.reason == "INVALID_QUOTA"
    found = await usage_pb2_grpc.UsageServiceStub(keeper).GetStatistics(pb.GetStatisticsRequest())
    assert (found.tokens.value, list(found.top_users)) == (0, [])
