"""What people do with prompts: write one, and look at them."""

from collections.abc import Callable

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_prompt import repository
from espalier_prompt.errors import InvalidTemplate, PromptNameTaken, PromptNotFound
from espalier_prompt.models import Prompt, PromptVersion, PromptVersionCreated
from espalier_prompt.templates import read_template

Publish = Callable[[Session, PromptVersionCreated], None]
"""Puts the event into the outbox, in the same transaction as the change."""


class Prompts:
    """The use cases. Each runs in the caller's transaction; the edge commits."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    def create(
        self, session: Session, principal: Principal, *, name: str, text: str, commit_message: str
    ) -> tuple[Prompt, PromptVersion]:
        """Creates a prompt, the caller's own, with its first version. Raises InvalidTemplate, PromptNameTaken."""
        variables = _read_variables(text)
        if repository.name_is_taken(session, principal.subject, name):
            raise PromptNameTaken(_taken(name))
        prompt = Prompt(owner_id=principal.subject, name=name, newest_version=0)
        session.add(prompt)
        try:
            session.flush()
        except IntegrityError as error:
            # Somebody was quicker, with the same name at the same moment.
            raise PromptNameTaken(_taken(name)) from error
        version = prompt.next_version(text, variables=variables, commit_message=commit_message)
        session.add(version)
        session.flush()
        self._publish(session, PromptVersionCreated(prompt, version))
        return prompt, version

    def get(self, session: Session, principal: Principal, prompt_id: str) -> Prompt:
        """One prompt with its newest version. Raises PromptNotFound, also for somebody else's."""
        prompt = repository.find_prompt(session, prompt_id, principal)
        if prompt is None:
            raise PromptNotFound("prompt", prompt_id)
        return prompt

    def list(self, session: Session, principal: Principal, *, page: PageRequest) -> Page[Prompt]:
        """The prompts with their newest versions, newest first."""
        return repository.list_prompts(session, principal, page=page)


def _read_variables(text: str) -> list[str]:
    template = read_template(text)
    if template.faults:
        violations = [FieldViolation("prompt.text", str(fault), "TEMPLATE_SYNTAX") for fault in template.faults]
        raise InvalidTemplate(f"The text has a faulty variable: {template.faults[0]}.", violations=violations)
    return template.variables


def _taken(name: str) -> str:
    return f"You have a prompt named {name!r} already; choose another name."
