"""Every query of eval."""

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import visible
from espalier_eval.models import Evaluation


def find_evaluation(session: Session, evaluation_id: str, principal: Principal) -> Evaluation | None:
    """One evaluation with its items, if the caller may see it."""
    query = select(Evaluation).where(Evaluation.id == evaluation_id, visible(Evaluation.owner_id, principal))
    return session.scalar(query.options(selectinload(Evaluation.items)))


def list_evaluations(session: Session, principal: Principal, *, page: PageRequest) -> Page[Evaluation]:
    """The evaluations that the caller may see, newest first, without their items."""
    query = select(Evaluation).where(visible(Evaluation.owner_id, principal))
    return paginate(session, query, order=(Evaluation.created_at.desc(), Evaluation.id.desc()), page=page)
