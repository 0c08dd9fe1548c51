"""Chat templates: messages in, the model's text out, and which parts of it are answers.

Templates are Jinja as `transformers` and vLLM read it, run in an immutable sandbox. What the model learns to say stands
between `{% generation %}` and `{% endgeneration %}`. A template without that mark (one that came with a model) is
rendered turn by turn instead, and what an assistant turn adds is its answer.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import TemplateError as JinjaError
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from espalier_data.errors import TemplateError
from espalier_data.examples import Conversation, Role

MAX_TEMPLATE_CHARACTERS = 200_000
# A template is the model's or the user's own program; whatever it raises is about it.
_TEMPLATE_FAILURES = (
    JinjaError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template and the tokens that it needs in the vocabulary."""

    name: str
    source: str
    end_of_turn: str
    """The token that ends an answer: generation stops at it. Empty = the tokenizer's own end-of-text token."""
    special_tokens: tuple[str, ...] = ()
    """Tokens of the markup, `end_of_turn` included; empty when the markup is ordinary text."""
    bos_token: str = ""
    eos_token: str = ""

    def render(self, conversation: Conversation, *, add_generation_prompt: bool = False) -> str:
        """The whole text of the conversation. Raises TemplateError when the template refuses it."""
        return "".join(part.text for part in self.segments(conversation, add_generation_prompt=add_generation_prompt))

    def segments(self, conversation: Conversation, *, add_generation_prompt: bool = False) -> list[Segment]:
        """The text in order, cut where answers begin and end. Raises TemplateError when the template refuses it."""
        if _compiled(self.source).has_marks:
            return self._marked_segments(conversation, add_generation_prompt=add_generation_prompt)
        return self._grown_segments(conversation, add_generation_prompt=add_generation_prompt)

    def _marked_segments(self, conversation: Conversation, *, add_generation_prompt: bool) -> list[Segment]:
        opening, closing = _unused_marks(conversation)
        text = self._run(
            conversation,
            add_generation_prompt=add_generation_prompt,
            variables={"_espalier_marks": (opening, closing)},
        )
        before, *answers = text.split(opening)
        segments = [Segment(before, is_answer=False)]
        for piece in answers:
            answer, _, rest = piece.partition(closing)
            segments += [Segment(answer, is_answer=True), Segment(rest, is_answer=False)]
        return [segment for segment in segments if segment.text]

    def _grown_segments(self, conversation: Conversation, *, add_generation_prompt: bool) -> list[Segment]:
        whole = self._run(conversation, add_generation_prompt=add_generation_prompt)
        segments: list[Segment] = []
        done = 0
        for index, message in enumerate(conversation.messages):
            if message.role is not Role.ASSISTANT:
                continue
            before = self._run(Conversation(conversation.messages[:index]), add_generation_prompt=True)
            after = self._run(Conversation(conversation.messages[: index + 1]))
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
                raise TemplateError(
                    f"the chat template {self.name} rewrites earlier turns, so that its answers cannot be told apart; "
                    "choose another template, or mark the answers with {% generation %}"
                )
            segments += [Segment(whole[done : len(before)], is_answer=False)]
            segments += [Segment(whole[len(before) : len(after)], is_answer=True)]
            done = len(after)
        segments.append(Segment(whole[done:], is_answer=False))
        return [segment for segment in segments if segment.text]

    def _run(
        self,
        conversation: Conversation,
        *,
        add_generation_prompt: bool = False,
        variables: dict[str, Any] | None = None,
    ) -> str:
        try:
            rendered: str = _compiled(self.source).template.render(
                messages=conversation.as_dicts(),
                add_generation_prompt=add_generation_prompt,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                **(variables or {}),
            )
        except SecurityError as error:
            raise TemplateError(f"the chat template {self.name} does what a template must not do: {error}") from error
        except _TEMPLATE_FAILURES as error:
            raise TemplateError(f"the chat template {self.name} refuses the messages: {error}") from error
        return rendered


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of rendered text that is either an answer (trained on) or not."""

    text: str
    is_answer: bool


def chat_template(name: str) -> ChatTemplate:
    """The built-in template of that name. Raises TemplateError for an unknown one."""
    if name not in _BUILT_IN:
        raise TemplateError(f"the chat template {name!r} is unknown; choose one of {', '.join(template_names())}")
    end_of_turn, special_tokens = _BUILT_IN[name]
    source = resources.files("espalier_data").joinpath("templates", f"{name}.jinja").read_text("utf-8").rstrip("\n")
    return ChatTemplate(name=name, source=source, end_of_turn=end_of_turn, special_tokens=special_tokens)


def template_names() -> tuple[str, ...]:
    """Names of the built-in templates."""
    return tuple(_BUILT_IN)


def check_template(source: str) -> None:
    """Raises TemplateError with the line when the source does not compile."""
    _compiled(source)


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: Any
    has_marks: bool


@lru_cache(maxsize=64)
def _compiled(source: str) -> _Compiled:
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateError(
            f"the chat template has {len(source)} characters; at most {MAX_TEMPLATE_CHARACTERS} are read"
        )
    # The options are those of transformers, so that one source means the same text everywhere.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationMark, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        tree = environment.parse(source)
        marked = any(call.identifier == _GenerationMark.identifier for call in tree.find_all(nodes.ExtensionAttribute))
        return _Compiled(template=environment.from_string(source), has_marks=marked)
    except JinjaError as error:
        line = getattr(error, "lineno", None)
        raise TemplateError(f"the chat template does not compile{f', line {line}' if line else ''}: {error}") from error


class _GenerationMark(Extension):
    """`{% generation %}` puts the marks given as a variable around its body; without marks it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, context: Context, caller: Macro) -> str:
        opening, closing = context.get("_espalier_marks") or ("", "")
        return f"{opening}{caller()}{closing}"


def _unused_marks(conversation: Conversation) -> tuple[str, str]:
    """Two marks made of Unicode noncharacters that no message contains."""
    contents = "".join(message.content for message in conversation.messages)
    number = 0
    while (mark := f"\ufdd0{number}\ufdd1") in contents:
        number += 1
    return mark + "\ufdd2", mark + "\ufdd3"


def _to_json(value: Any, indent: int | None = None, separators: Sequence[str] | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=tuple(separators) if separators else None)  # type: ignore[arg-type]


def _raise_exception(message: str) -> None:
    raise JinjaError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime(form)


_BUILT_IN: dict[str, tuple[str, tuple[str, ...]]] = {
    "chatml": ("<|im_end|>", ("<|im_start|>", "<|im_end|>")),
    "llama3": ("<|eot_id|>", ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "alpaca": ("", ()),
}
