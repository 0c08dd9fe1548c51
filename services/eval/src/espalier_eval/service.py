"""What people do with evaluations: score answers, and look at the scores."""

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_eval import repository
from espalier_eval.errors import EvaluationNotFound, TextTooLong
from espalier_eval.models import Evaluation, EvaluationCreated, EvaluationItem, Scorer
from espalier_eval.scorers import SCORERS, words

# Two such texts are scored in some hundredths of a second.
MAX_WORDS = 10_000

Publish = Callable[[Session, EvaluationCreated], None]
"""Puts the event into the outbox, in the same transaction as the change."""
Pair = tuple[str, str]
"""A reference and the answer given."""


def score(pairs: Sequence[Pair], scorer: Scorer) -> list[EvaluationItem]:
    """Scores each answer. Raises TextTooLong, naming every text that is. Needs no database and may take seconds."""
    if scorer is Scorer.ROUGE_L:
        _require_scorable(pairs)
    compare = SCORERS[scorer]
    return [
        EvaluationItem(reference=reference, answer=answer, score=compare(reference, answer))
        for reference, answer in pairs
    ]


class Evaluations:
    """The use cases. Each runs in the caller's transaction; the edge commits."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    def create(
        self, session: Session, principal: Principal, items: Sequence[EvaluationItem], *, name: str, scorer: Scorer
    ) -> Evaluation:
        """Keeps scored answers; they belong to the caller."""
        evaluation = Evaluation.of(items, name=name, scorer=scorer, owner_id=principal.subject)
        session.add(evaluation)
        session.flush()
        self._publish(session, EvaluationCreated(evaluation))
        return evaluation

    def get(self, session: Session, principal: Principal, evaluation_id: str) -> Evaluation:
        """One evaluation with its items. Raises EvaluationNotFound, also for somebody else's."""
        evaluation = repository.find_evaluation(session, evaluation_id, principal)
        if evaluation is None:
            raise EvaluationNotFound("evaluation", evaluation_id)
        return evaluation

    def list(self, session: Session, principal: Principal, *, page: PageRequest) -> Page[Evaluation]:
        """The evaluations, newest first, without their items."""
        return repository.list_evaluations(session, principal, page=page)


def _require_scorable(pairs: Sequence[Pair]) -> None:
    found = [
        FieldViolation(
            f"evaluation.items[{index}].{field}",
            f"has {count} words; ROUGE-L compares at most {MAX_WORDS}, so cut the text into parts",
            "TOO_MANY_WORDS",
        )
        for index, pair in enumerate(pairs)
        for field, text in zip(("reference", "answer"), pair, strict=True)
        if len(text) > MAX_WORDS and (count := len(words(text))) > MAX_WORDS
    ]
    if found:
        raise TextTooLong(f"{found[0].field} {found[0].description}.", violations=found)
