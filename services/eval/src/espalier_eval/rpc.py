"""The edge of eval: proto in, use case, proto out. Commits here."""

from espalier.eval.v1 import service_pb2, service_pb2_grpc
from espalier_common.db import Database
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.timestamps import timestamp
from espalier_eval.models import Evaluation, Scorer
from espalier_eval.service import Evaluations, score

_FROM_PROTO = {
    service_pb2.SCORER_UNSPECIFIED: Scorer.ROUGE_L,
    service_pb2.SCORER_ROUGE_L: Scorer.ROUGE_L,
    service_pb2.SCORER_EXACT_MATCH: Scorer.EXACT_MATCH,
}
_TO_PROTO = {
    Scorer.ROUGE_L: service_pb2.SCORER_ROUGE_L,
    Scorer.EXACT_MATCH: service_pb2.SCORER_EXACT_MATCH,
}


class EvalRpc(service_pb2_grpc.EvalServiceServicer):
    """Scores answers, and shows the scores."""

    def __init__(self, database: Database, *, evaluations: Evaluations, paginator: Paginator) -> None:
        self._database = database
        self._evaluations = evaluations
        self._paginator = paginator

    def CreateEvaluation(self, request: service_pb2.CreateEvaluationRequest, context: object) -> service_pb2.Evaluation:
        wanted = request.evaluation
        scorer = _FROM_PROTO[wanted.scorer]
        # Before the transaction: a connection is not held while words are compared.
        items = score([(item.reference, item.answer) for item in wanted.items], scorer)
        with self._database.transaction() as session:
            evaluation = self._evaluations.create(session, current_principal(), items, name=wanted.name, scorer=scorer)
        return to_proto(evaluation, with_items=True)

    def GetEvaluation(self, request: service_pb2.GetEvaluationRequest, context: object) -> service_pb2.Evaluation:
        with self._database.reading() as session:
            evaluation = self._evaluations.get(session, current_principal(), request.evaluation_id)
        return to_proto(evaluation, with_items=True)

    def ListEvaluations(
        self, request: service_pb2.ListEvaluationsRequest, context: object
    ) -> service_pb2.ListEvaluationsResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._evaluations.list(session, current_principal(), page=page)
        return service_pb2.ListEvaluationsResponse(
            evaluations=[to_proto(evaluation, with_items=False) for evaluation in found.items],
            next_page_token=found.next_page_token,
        )


def to_proto(evaluation: Evaluation, *, with_items: bool) -> service_pb2.Evaluation:
    """The evaluation; its items must be loaded when asked for."""
    message = service_pb2.Evaluation(
        id=evaluation.id,
        name=evaluation.name,
        scorer=_TO_PROTO[Scorer(evaluation.scorer)],
        score=evaluation.score,
        item_count=evaluation.item_count,
        owner_id=evaluation.owner_id,
        create_time=timestamp(evaluation.created_at),
    )
    if with_items:
        message.items.extend(
            service_pb2.EvaluationItem(reference=item.reference, answer=item.answer, score=item.score)
            for item in evaluation.items
        )
    return message
