"""Every query of prompt."""

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest, paginate
from espalier_common.visibility import visible
from espalier_prompt.models import Prompt


def find_prompt(session: Session, prompt_id: str, principal: Principal) -> Prompt | None:
    """One prompt with its newest version, if the caller may see it."""
    query = select(Prompt).where(Prompt.id == prompt_id, visible(Prompt.owner_id, principal))
    return session.scalar(query.options(joinedload(Prompt.newest)))


def name_is_taken(session: Session, owner_id: str, name: str) -> bool:
    """Whether the owner has a prompt of that name."""
    return session.scalar(select(Prompt.id).where(Prompt.owner_id == owner_id, Prompt.name == name)) is not None


def list_prompts(session: Session, principal: Principal, *, page: PageRequest) -> Page[Prompt]:
    """The prompts that the caller may see with their newest versions, newest first."""
    query = select(Prompt).where(visible(Prompt.owner_id, principal)).options(selectinload(Prompt.newest))
    return paginate(session, query, order=(Prompt.created_at.desc(), Prompt.id.desc()), page=page)
