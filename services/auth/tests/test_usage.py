"""The ledger counts each use once, sums it up as asked, and tells what was not measured from what was 0."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from espalier.auth.v1 import usage_pb2 as pb
from espalier.auth.v1 import usage_pb2_grpc
from espalier.chat.v1 import events_pb2 as chat_events
from espalier.chat.v1 import service_pb2 as chat_pb
from espalier_auth.access.models import Group
from espalier_auth.models import GroupMember
from espalier_auth.usage.events import ANSWER_FINISHED, USAGE_RECORDED, take_events
from espalier_common.bus import Event
from espalier_common.errors import EspalierError
from espalier_common.rpc.status import from_rpc_error
from espalier_common.rpc.timestamps import timestamp

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ADA = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
BEN = "018f6e1c-0b0a-7c3e-9d5a-0242ac120003"


def used(kind: str, amount: float, *, at: datetime = NOON, user: str = ADA, **fields: Any) -> Event:
    """What a service reports."""
    names: dict[str, Any] = {"id": str(uuid.uuid4()), "model": "tuned", "source": "chat", "succeeded": True} | fields
    message = pb.UsageRecorded(
        kind=pb.UsageKind.Value(f"USAGE_KIND_{kind}"), amount=amount, user_id=user, time=timestamp(at), **names
    )
    return told(USAGE_RECORDED, message)


def told(subject: str, message: Any) -> Event:
    return Event(subject, message.SerializeToString(), str(uuid.uuid4()), NOON)


def take(auth: Any, *events: Event) -> None:
    with auth.database.transaction() as session:
        take_events(session, events)


async def usage(auth: Any, **fields: Any) -> list[tuple[Any, ...]]:
    """Rows as (kind, amount, what was told apart …)."""
    fields = {
        "start_time": timestamp(NOON - timedelta(days=2)),
        "end_time": timestamp(NOON + timedelta(days=2)),
    } | fields
    answer = await (await usage_stub(auth)).ListUsage(pb.ListUsageRequest(**fields))
    names = {"user": "user_id", "group": "group_id", "model": "model", "source": "source"}
    told_apart = [names[name] for name in fields.get("group_by", ())]
    return [
        (pb.UsageKind.Name(row.kind)[11:], row.amount, *(getattr(row, name) for name in told_apart))
        for row in answer.rows
    ]


async def usage_stub(auth: Any) -> Any:
    return usage_pb2_grpc.UsageServiceStub(auth.channel((await auth.login()).access_token))


async def refusal(call: Any) -> EspalierError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def test_a_report_that_comes_twice_counts_once(auth: Any) -> None:
    report = used("TOKENS_IN", 10)
    take(auth, report)
    take(auth, report, used("TOKENS_IN", 5))

    assert await usage(auth) == [("TOKENS_IN", 15)]


async def test_an_answer_counts_its_tokens_and_one_request_and_ends_its_reservation(auth: Any) -> None:
    user = await auth.create_user("mia", roles=["tester"])
    message_id = str(uuid.uuid4())
    answer = chat_events.AnswerFinished(
        message_id=message_id,
        deployment_id=str(uuid.uuid4()),
        owner_id=user.id,
        state=chat_pb.MESSAGE_STATE_INTERRUPTED,
        prompt_tokens=7,
        completion_tokens=3,
        finish_time=timestamp(NOON),
        model="tuned-1",
    )
    take(auth, told(ANSWER_FINISHED, answer), told(ANSWER_FINISHED, answer))

    assert await usage(auth, group_by=["model", "source"]) == [
        ("REQUESTS", 1, "tuned-1", "chat"),
        ("TOKENS_IN", 7, "tuned-1", "chat"),
        ("TOKENS_OUT", 3, "tuned-1", "chat"),
    ]


async def test_what_is_estimated_is_told_with_the_sum_that_it_is_part_of(auth: Any) -> None:
    def answer(completion_tokens: int, *, estimated: bool) -> Event:
        message = chat_events.AnswerFinished(
            message_id=str(uuid.uuid4()),
            owner_id=ADA,
            prompt_tokens=7,
            completion_tokens=completion_tokens,
            finish_time=timestamp(NOON),
            model="foreign",
            estimated=estimated,
        )
        return told(ANSWER_FINISHED, message)

    take(auth, answer(3, estimated=False), answer(20, estimated=True), answer(100, estimated=True))
    stub = await usage_stub(auth)
    # Out of the sums of days, out of the entries of hours, and out of the entries of parts of days.
    for half, grain in ((36, pb.USAGE_GRAIN_DAY), (36, pb.USAGE_GRAIN_HOUR), (1, pb.USAGE_GRAIN_UNSPECIFIED)):
        start, end = NOON - timedelta(hours=half), NOON + timedelta(hours=half)
        request = pb.ListUsageRequest(start_time=timestamp(start), end_time=timestamp(end), grain=grain)
        rows = (await stub.ListUsage(request)).rows
        assert [(pb.UsageKind.Name(row.kind)[11:], row.amount, row.estimated) for row in rows] == [
            ("REQUESTS", 3, 0), ("TOKENS_IN", 21, 14), ("TOKENS_OUT", 123, 120),
        ]  # fmt: skip


async def test_usage_is_told_apart_by_user_group_model_and_source(auth: Any) -> None:
    mia = await auth.create_user("mia", roles=["tester"])
    ben = await auth.create_user("ben", roles=["tester"])
    with auth.database.transaction() as session:
        group = Group(name="research", description="", roles=[])
        session.add(group)
        session.flush()
        session.add_all([GroupMember(group_id=group.id, user_id=user.id) for user in (mia, ben)])
        group_id = group.id
    take(
        auth,
        used("TOKENS_IN", 1, user=mia.id),
        used("TOKENS_IN", 2, user=ben.id, source="api"),
        used("TOKENS_IN", 4, user=ADA, model="other"),
    )

    assert sorted(await usage(auth, group_by=["user"])) == sorted(
        [("TOKENS_IN", 1, mia.id), ("TOKENS_IN", 2, ben.id), ("TOKENS_IN", 4, ADA)]
    )
    assert await usage(auth, group_by=["group"]) == [("TOKENS_IN", 3, group_id)]
    assert await usage(auth, group_id=group_id, group_by=["source"]) == [
        ("TOKENS_IN", 2, "api"),
        ("TOKENS_IN", 1, "chat"),
    ]
    assert await usage(auth, model="other") == await usage(auth, user_id=ADA) == [("TOKENS_IN", 4)]
    assert (await refusal(usage(auth, group_by=["colour"]))).code == "INVALID_ARGUMENT"


async def test_usage_comes_by_hour_and_by_day(auth: Any) -> None:
    take(
        auth,
        used("TOKENS_IN", 1, at=NOON),
        used("TOKENS_IN", 2, at=NOON + timedelta(minutes=59)),
        used("TOKENS_IN", 4, at=NOON + timedelta(hours=1)),
    )
    period: dict[str, Any] = {"start_time": timestamp(NOON), "end_time": timestamp(NOON + timedelta(days=1))}
    stub = await usage_stub(auth)

    hours = (await stub.ListUsage(pb.ListUsageRequest(grain=pb.USAGE_GRAIN_HOUR, **period))).rows
    days = (await stub.ListUsage(pb.ListUsageRequest(grain=pb.USAGE_GRAIN_DAY, **period))).rows

    assert [(row.time.ToDatetime(UTC), row.amount) for row in hours] == [(NOON, 3), (NOON + timedelta(hours=1), 4)]
    assert [(row.time.ToDatetime(UTC), row.amount) for row in days] == [(NOON.replace(hour=0), 7)]


async def test_the_sums_of_days_are_those_of_their_entries_wherever_a_period_begins_and_ends(auth: Any) -> None:
    hour = timedelta(hours=1)
    entries = [
        (NOON + (7 * number - 60) * hour, (ADA, BEN)[number % 2], ("tuned", "other", "")[number % 3], float(number))
        for number in range(20)
    ]
    reports = [used("TOKENS_IN", amount, at=at, user=user, model=model) for at, user, model, amount in entries]
    for batch in (reports[:7], reports[3:], reports):
        take(auth, *batch, used("STORED_BYTES", 5))
    stub = await usage_stub(auth)
    for start, end in ((-60, 80), (-61, 11), (-12, 12), (-11, 13), (1, 4), (12, 36)):
        period = {"start_time": timestamp(NOON + start * hour), "end_time": timestamp(NOON + end * hour)}
        told = [one for one in entries if NOON + start * hour <= one[0] < NOON + end * hour]
        by_day: dict[tuple[str, str, str], float] = {}
        for at, user, model, amount in told:
            key = (at.date().isoformat(), user, model)
            by_day[key] = by_day.get(key, 0.0) + amount
        answer = await stub.ListUsage(
            pb.ListUsageRequest(
                **period, grain=pb.USAGE_GRAIN_DAY, group_by=["user", "model"], kind=pb.USAGE_KIND_TOKENS_IN
            )
        )
        assert {
            (row.time.ToDatetime().date().isoformat(), row.user_id, row.model): row.amount for row in answer.rows
        } == by_day
        found = await stub.GetStatistics(pb.GetStatisticsRequest(**period))
        assert found.tokens.value == sum(by_day.values())


def kept(amount: float, by_model: dict[str, float] | None = None, **fields: Any) -> Event:
    """What the orchestrator tells of all that somebody keeps; a release before this one did not say of which models."""
    return used("STORED_BYTES", amount, **{"model": "", "source": "training", "by_model": by_model or {}} | fields)


async def test_what_is_kept_is_told_by_model_and_adds_up_at_every_moment(auth: Any) -> None:
    hour = timedelta(hours=1)
    reports = [
        kept(100, at=NOON - 9 * hour),  # by the release before
        kept(170, {"qwen": 120, "tiny": 10}, at=NOON),
        kept(60, {"qwen": 20}, at=NOON + hour),
        kept(7, {"tiny": 7}, at=NOON - 60 * hour, user=BEN),
        kept(0, at=NOON + 3 * hour, user=BEN),
    ]
    take(auth, *reversed(reports))
    take(auth, *reports)

    async def told(start: int, end: int, **fields: Any) -> list[tuple[Any, ...]]:
        period = {"start_time": timestamp(NOON + start * hour), "end_time": timestamp(NOON + end * hour)}
        return [row[1:] for row in await usage(auth, **period, **fields)]

    assert await told(-1, 0, group_by=["model"]) == [(100, ""), (7, "tiny")]
    assert await told(0, 1, group_by=["model", "user"]) == [
        (40, "", ADA),
        (120, "qwen", ADA),
        (10, "tiny", ADA),
        (7, "tiny", BEN),
    ]
    assert await told(1, 2, group_by=["model"]) == [(40, ""), (20, "qwen"), (7, "tiny")]
    # Whoever keeps nothing any more keeps 0; nothing was told of a model that he does not have.
    assert await told(4, 5, group_by=["user", "model"]) == [(40, ADA, ""), (20, ADA, "qwen"), (0, BEN, "")]
    assert [await told(start, start + 1) for start in (-70, -20, -5, 0, 1, 2, 3)] == [
        [], [(7,)], [(107,)], [(177,)], [(67,)], [(67,)], [(60,)],
    ]  # fmt: skip
    assert await told(-70, 5) == await told(4, 5, user_id=ADA) == [(60,)]
    assert await told(-9, 9, model="qwen") == [(20,)]


async def test_each_hour_has_what_was_kept_at_its_end_though_nothing_was_reported_in_it(auth: Any) -> None:
    hour = timedelta(hours=1)
    take(
        auth,
        kept(50, {"qwen": 50}, at=NOON - 100 * hour),
        kept(90, {"qwen": 80}, at=NOON + 1.2 * hour),
        kept(30, {"tiny": 30}, at=NOON + 1.8 * hour),
        kept(40, {"tiny": 30}, at=NOON + 3 * hour),
    )
    answer = await (await usage_stub(auth)).ListUsage(
        pb.ListUsageRequest(
            start_time=timestamp(NOON),
            end_time=timestamp(NOON + 4 * hour),
            grain=pb.USAGE_GRAIN_HOUR,
            group_by=["model"],
            kind=pb.USAGE_KIND_STORED_BYTES,
        )
    )
    found = [((row.time.ToDatetime(UTC) - NOON) // hour, row.model, row.amount) for row in answer.rows]
    assert found == [
        (0, "qwen", 50),
        (1, "", 0), (1, "qwen", 0), (1, "tiny", 30),
        (2, "", 0), (2, "qwen", 0), (2, "tiny", 30),
        (3, "", 10), (3, "qwen", 0), (3, "tiny", 30),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "period",
    [
        {"end_time": Timestamp(seconds=-62135596800)},
        {"start_time": Timestamp(seconds=253402300799)},
        {"start_time": Timestamp(seconds=2**62)},
        {"start_time": Timestamp(nanos=-5)},
        {"start_time": timestamp(NOON), "end_time": timestamp(NOON)},
        {"start_time": timestamp(NOON - timedelta(days=4000)), "end_time": timestamp(NOON)},
    ],
)
async def test_a_period_that_makes_no_sense_is_refused(auth: Any, period: dict[str, Any]) -> None:
    stub = await usage_stub(auth)

    for call in (
        stub.ListUsage(pb.ListUsageRequest(**period)),
        stub.ListMyUsage(pb.ListMyUsageRequest(**period)),
        stub.GetStatistics(pb.GetStatisticsRequest(**period)),
    ):
        assert (await refusal(call)).code == "INVALID_ARGUMENT"


async def test_one_sees_his_own_use_and_not_that_of_others(auth: Any) -> None:
    mia = await auth.create_user("mia", roles=["tester"])
    take(auth, used("TOKENS_IN", 1, user=mia.id), used("TOKENS_IN", 2, user=ADA))
    stub = usage_pb2_grpc.UsageServiceStub(auth.channel((await auth.login("mia", "a quiet green lamp")).access_token))
    period: dict[str, Any] = {
        "start_time": timestamp(NOON - timedelta(days=1)),
        "end_time": timestamp(NOON + timedelta(days=1)),
    }

    assert [row.amount for row in (await stub.ListMyUsage(pb.ListMyUsageRequest(**period))).rows] == [1]
    assert (await refusal(stub.ListUsage(pb.ListUsageRequest()))).metadata["permission"] == "auth.usage.list"


async def test_what_makes_no_sense_is_dropped_and_the_rest_counts(auth: Any) -> None:
    nonsense = [used("TOKENS_IN", amount) for amount in (-1.0, float("nan"))]
    garbage = Event(USAGE_RECORDED, b"\xff\xff", "1", NOON)
    take(auth, *nonsense, garbage, used("TOKENS_IN", 3, id="x"), used("TOKENS_IN", 2))

    assert await usage(auth) == [("TOKENS_IN", 2)]


async def test_statistics_set_a_period_against_the_one_before(auth: Any) -> None:
    day = timedelta(days=1)
    mia = await auth.create_user("mia", roles=["trainer"])
    take(
        auth,
        used("TOKENS_IN", 10, at=NOON - day, user=BEN),
        used("REQUESTS", 1, at=NOON - day, user=BEN),
        used("TOKENS_IN", 30),
        used("TOKENS_OUT", 20, user=BEN, model="other"),
        used("REQUESTS", 1),
        used("REQUESTS", 1, succeeded=False),
        used("GPU_SECONDS", 7200, source="training", model="", queue_wait={"seconds": 30}),
        used("TOKENS_IN", 500, source="training", model="", user=mia.id),
    )
    request = pb.GetStatisticsRequest(start_time=timestamp(NOON - day / 2), end_time=timestamp(NOON + day / 2))
    found = await (await usage_stub(auth)).GetStatistics(request)

    assert (found.active_users.value, found.active_users.before) == (3, 1)
    assert (found.requests.value, found.tokens.value, found.tokens.before) == (2, 550, 10)
    assert (found.trained_tokens.value, found.trained_tokens.HasField("before")) == (500, False)
    assert (found.gpu_hours.value, found.queue_wait_seconds.value) == (2, 30)
    assert found.success_rate.value == pytest.approx(2 / 3)
    assert [(one.name, one.label, one.amount) for one in found.top_users] == [
        (mia.id, "mia", 500), (ADA, ADA, 30), (BEN, BEN, 20),
    ]  # fmt: skip
    assert [(one.name, one.label, one.amount) for one in found.top_models] == [
        ("tuned", "tuned", 30), ("other", "other", 20),
    ]  # fmt: skip


async def test_parts_of_a_use_that_goes_on_count_their_amount_and_neither_as_done_well_nor_as_somebody_at_work(
    auth: Any,
) -> None:
    parts = [
        used(
            "GPU_SECONDS", 900, at=NOON + part * timedelta(minutes=15), source=source, unfinished=True, succeeded=False
        )
        for part, source in enumerate(["serving"] * 4 + ["training"] * 3)
    ]
    take(auth, *parts, used("GPU_SECONDS", 900, at=NOON + timedelta(hours=2), source="training", user=BEN))
    request = pb.GetStatisticsRequest(
        start_time=timestamp(NOON - timedelta(hours=1)), end_time=timestamp(NOON + timedelta(hours=3))
    )
    found = await (await usage_stub(auth)).GetStatistics(request)
    assert (found.gpu_hours.value, found.success_rate.value, found.active_users.value) == (2, 1, 2)
    assert await usage(auth, group_by=["source"], grain=pb.USAGE_GRAIN_HOUR) == [
        ("GPU_SECONDS", 3600, "serving"), ("GPU_SECONDS", 2700, "training"), ("GPU_SECONDS", 900, "training"),
    ]  # fmt: skip


async def test_what_was_not_measured_is_absent_and_not_0(auth: Any) -> None:
    stub = await usage_stub(auth)
    empty = await stub.GetStatistics(pb.GetStatisticsRequest())
    assert not empty.requests.HasField("value")

    take(auth, used("TOKENS_IN", 1))
    day = timedelta(days=1)
    after = pb.GetStatisticsRequest(start_time=timestamp(NOON + day), end_time=timestamp(NOON + 2 * day))
    found = await stub.GetStatistics(after)

    assert (found.tokens.HasField("value"), found.tokens.value) == (True, 0)
    assert not found.gpu_hours.HasField("value"), "no GPU ever reported"
    assert not found.success_rate.HasField("value")
    assert not found.queue_wait_seconds.HasField("value")
    first = pb.GetStatisticsRequest(start_time=timestamp(NOON - day / 2), end_time=timestamp(NOON + day / 2))
    assert not (await stub.GetStatistics(first)).tokens.HasField("before")
