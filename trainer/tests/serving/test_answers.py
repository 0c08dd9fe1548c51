"""How the model answers, without the server around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espalier_data import Conversation, Message, Role, TemplateError, chat_template
from espalier_trainer.serving.errors import ApiError
from espalier_trainer.serving.model import Finish, Sampling, ServedModel, load_model

QUESTION = Conversation((Message(Role.USER, "How are you?"),))


def load(directory: Path) -> ServedModel:
    return load_model(directory, device="cpu", threads=1)


def answer(model: ServedModel, sampling: Sampling, *, cancel_after: int = 10_000) -> tuple[str, Finish]:
    count = iter(range(10_000))
    pieces = list(model.answer(model.prompt(QUESTION), sampling, is_cancelled=lambda: next(count) >= cancel_after))
    assert isinstance(pieces[-1], Finish)
    return "".join(map(str, pieces[:-1])), pieces[-1]


def test_the_end_of_turn_ends_the_answer_and_is_not_shown(scripted: Any) -> None:
    directory, sentence = scripted
    text, finish = answer(load(directory), Sampling(temperature=0, max_tokens=100))
    assert text == sentence
    assert finish.reason == "stop"


def test_the_answer_is_what_transformers_would_generate(random_model: Path) -> None:
    import torch

    model = load(random_model)
    prompt = model.prompt(QUESTION)
    with torch.inference_mode():
        wanted = model.network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=30,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
    ids = model._ids(prompt, Sampling(temperature=0, max_tokens=30))
    assert [next(ids) for _ in range(30)] == wanted


def test_a_seed_repeats_the_answer_and_no_seed_does_not(random_model: Path) -> None:
    model = load(random_model)

    def say(seed: int | None, **changes: float) -> str:
        return answer(model, Sampling(seed=seed, max_tokens=24, temperature=1.5, **changes))[0]  # type: ignore[arg-type]

    assert say(1) == say(1)
    assert say(1) != say(2)
    assert say(None) != say(None)
    assert say(1, top_p=1e-6) == answer(model, Sampling(temperature=0, max_tokens=24))[0]


def test_an_answer_ends_with_the_context(random_model: Path) -> None:
    model = load(random_model)
    prompt = model.prompt(QUESTION)
    _, finish = answer(model, Sampling(temperature=0, max_tokens=10_000))
    assert finish == Finish("length", model.context - len(prompt)) or finish.reason == "stop"
    with pytest.raises(ApiError, match="128"):
        model.prompt(Conversation((Message(Role.USER, "x" * 500),)))


def test_a_cancelled_answer_ends_at_the_next_token(random_model: Path) -> None:
    _, finish = answer(load(random_model), Sampling(temperature=0, max_tokens=100), cancel_after=3)
    assert finish.reason in ("cancelled", "stop")
    assert finish.completion_tokens <= 5


def test_the_prompt_is_that_of_training(scripted: Any) -> None:
    model = load(scripted[0])
    rendered = chat_template("chatml").render(QUESTION, add_generation_prompt=True)
    assert model.prompt(QUESTION) == model.tokenizer.encode(rendered).ids
    assert model.prompt(QUESTION)[-1] == model.tokenizer.encode("\n").ids[0]


def test_a_template_that_refuses_is_the_askers_error(scripted: Any) -> None:
    directory, _ = scripted
    (directory / "chat_template.jinja").write_text("{{ raise_exception('no questions, please') }}")
    with pytest.raises(ApiError, match="no questions, please") as caught:
        load(directory).prompt(QUESTION)
    assert caught.value.status == 400
    assert isinstance(caught.value.__cause__, TemplateError)
