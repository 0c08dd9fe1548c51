"""Evaluations as a user sees them."""

from typing import Any

import grpc.aio
import pytest
from sqlalchemy import select

from espalier.eval.v1 import events_pb2, service_pb2, service_pb2_grpc
from espalier_common.db import Database
from espalier_common.rpc.status import from_rpc_error
from espalier_common.tables import outbox
from espalier_common.testing.rpc import RpcTestServer, refusal_bytes
from espalier_eval.models import Base

MIA, BEN = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002", "018f6e1c-0b0a-7c3e-9d5a-0242ac120003"


async def test_answers_are_scored_and_kept(server: RpcTestServer) -> None:
    created = await _create(_stub(server), "held-out", ("one two three four", "one two"), ("yes", "yes"))
    found = await _stub(server).GetEvaluation(service_pb2.GetEvaluationRequest(evaluation_id=created.id))

    assert found == created
    assert [item.score for item in found.items] == [pytest.approx(2 / 3), 1.0]
    assert found.score == pytest.approx(5 / 6)
    assert (found.item_count, found.owner_id, found.scorer) == (2, MIA, service_pb2.SCORER_ROUGE_L)
    assert found.create_time.seconds > 0


async def test_the_scorer_can_be_chosen(server: RpcTestServer) -> None:
    created = await _create(_stub(server), "exact", ("42", " 42"), ("42", "41"), scorer=service_pb2.SCORER_EXACT_MATCH)

    assert [item.score for item in created.items] == [1.0, 0.0]
    assert created.score == 0.5


async def test_scores_given_by_the_caller_are_ignored(server: RpcTestServer) -> None:
    item = service_pb2.EvaluationItem(reference="a", answer="b", score=1)
    evaluation = service_pb2.Evaluation(name="x", items=[item], score=1, owner_id=BEN, item_count=7)
    created = await _stub(server).CreateEvaluation(service_pb2.CreateEvaluationRequest(evaluation=evaluation))

    assert (created.score, created.items[0].score, created.owner_id, created.item_count) == (0, 0, MIA, 1)


async def test_a_list_has_the_newest_first_without_items_in_pages(server: RpcTestServer) -> None:
    stub = _stub(server)
    for name in ("first", "second", "third"):
        await _create(stub, name, ("a", "a"))

    page = await stub.ListEvaluations(service_pb2.ListEvaluationsRequest(page_size=2))
    rest = await stub.ListEvaluations(service_pb2.ListEvaluationsRequest(page_size=2, page_token=page.next_page_token))

    assert [evaluation.name for evaluation in [*page.evaluations, *rest.evaluations]] == ["third", "second", "first"]
    assert not any(evaluation.items for evaluation in page.evaluations)
    assert page.evaluations[0].item_count == 1
    assert not rest.next_page_token


async def test_somebody_elses_evaluation_looks_like_a_missing_one(server: RpcTestServer) -> None:
    created = await _create(_stub(server, subject=MIA), "mine", ("a", "a"))
    ben = _stub(server, subject=BEN)
    foreign = await _get_refusal(ben, created.id)
    missing_id = "018f6e1c-0b0a-7c3e-9d5a-0242ac12ffff"
    missing = await _get_refusal(ben, missing_id)

    assert foreign.code() is missing.code() is grpc.StatusCode.NOT_FOUND
    assert refusal_bytes(foreign).replace(created.id.encode(), b"ID") == refusal_bytes(missing).replace(
        missing_id.encode(), b"ID"
    )
    assert not (await ben.ListEvaluations(service_pb2.ListEvaluationsRequest())).evaluations


async def test_who_may_see_all_sees_all(server: RpcTestServer) -> None:
    created = await _create(_stub(server, subject=MIA), "mine", ("a", "a"))
    viewer = _stub(server, subject=BEN, scope="all")

    assert (await viewer.ListEvaluations(service_pb2.ListEvaluationsRequest())).evaluations[0].id == created.id


async def test_reading_is_not_writing(server: RpcTestServer) -> None:
    reader = service_pb2_grpc.EvalServiceStub(server.channel(permissions=["eval.evaluations.get"]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _create(reader, "x", ("a", "a"))

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("evaluation", "fields"),
    [
        ({}, {"evaluation.name", "evaluation.items"}),
        ({"name": "x", "items": [{"answer": "a"}]}, {"evaluation.items[0].reference"}),
        ({"name": "x\x00", "items": [{"reference": "a", "answer": "b\x00"}]},
         {"evaluation.name", "evaluation.items[0].answer"}),
        ({"name": "x", "items": [{"reference": "a", "score": float("nan")}]}, {"evaluation.items[0].score"}),
        ({"name": "x", "items": [{"reference": "a"}], "scorer": 9}, {"evaluation.scorer"}),
        ({"name": "x", "items": [{"reference": "a " * 10_001, "answer": "b " * 10_001}, {"reference": "a"}]},
         {"evaluation.items[0].reference", "evaluation.items[0].answer"}),
    ],
)  # fmt: skip
async def test_what_cannot_be_scored_is_refused_with_every_field(
    server: RpcTestServer, evaluation: dict[str, Any], fields: set[str]
) -> None:
    request = service_pb2.CreateEvaluationRequest(evaluation=service_pb2.Evaluation(**evaluation))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _stub(server).CreateEvaluation(request)

    error: Any = from_rpc_error(refused.value)
    assert error.code == "INVALID_ARGUMENT"
    assert {violation.field for violation in error.violations} == fields


async def test_a_long_text_can_be_matched_exactly(server: RpcTestServer) -> None:
    text = "a " * 10_001
    created = await _create(_stub(server), "long", (text, text), scorer=service_pb2.SCORER_EXACT_MATCH)

    assert created.score == 1


async def test_other_services_are_told(server: RpcTestServer, database: Database) -> None:
    created = await _create(_stub(server), "told", ("a", "a"))

    with database.transaction() as session:
        row = session.execute(select(outbox)).one()
    event = events_pb2.EvaluationCreated.FromString(bytes(row.payload))
    assert row.subject == "espalier.eval.v1.EvaluationCreated"
    assert (event.evaluation_id, event.score, event.owner_id) == (created.id, 1.0, MIA)


def test_the_migrations_make_what_the_entities_describe(database_url: str) -> None:
    from espalier_common.testing.migrations import assert_migrations_match

    assert_migrations_match("espalier_eval", Base.metadata, database_url)


def _stub(server: RpcTestServer, *, subject: str = MIA, scope: str = "own") -> Any:
    return service_pb2_grpc.EvalServiceStub(server.channel(permissions=["eval.*"], subject=subject, scope=scope))


async def _create(
    stub: Any,
    name: str,
    *pairs: tuple[str, str],
    scorer: "service_pb2.Scorer.ValueType" = service_pb2.SCORER_UNSPECIFIED,
) -> service_pb2.Evaluation:
    items = [service_pb2.EvaluationItem(reference=reference, answer=answer) for reference, answer in pairs]
    evaluation = service_pb2.Evaluation(name=name, scorer=scorer, items=items)
    created: service_pb2.Evaluation = await stub.CreateEvaluation(
        service_pb2.CreateEvaluationRequest(evaluation=evaluation)
    )
    return created


async def _get_refusal(stub: Any, evaluation_id: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetEvaluation(service_pb2.GetEvaluationRequest(evaluation_id=evaluation_id))
    return refused.value
