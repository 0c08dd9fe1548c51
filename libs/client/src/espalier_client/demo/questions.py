"""Asks deployed models questions through chat, streaming, and has their answers scored by the eval service."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from espalier_client.api import Api
from espalier_client.commands.chat import open_session, send

QUESTIONS = 16
# Greedy, so that the same model gives the same answer; long enough for a docstring's first paragraph.
PARAMETERS = {"temperature": 0, "max_tokens": 96}


@dataclass(frozen=True)
class Answer:
    """A model's answer to one question, and the answer that the documentation gives."""

    question: str
    reference: str
    text: str


def sample(rows: Sequence[dict[str, str]], count: int = QUESTIONS) -> list[dict[str, str]]:
    """Rows spread evenly over all of them, the same at each run."""
    step = max(1, len(rows) // count)
    return list(rows[::step][:count])


def ask(api: Api, deployment: str, question: str) -> str:
    """One answer, put together out of its pieces as they stream."""
    session = open_session(api, deployment, parameters=PARAMETERS)
    return "".join(delta["text"] for delta in send(api, session, question))


def ask_all(api: Api, deployments: dict[str, str], rows: Sequence[dict[str, str]]) -> dict[str, list[Answer]]:
    """Every row asked of every deployment (name → id); one caller each, for a model answers one at a time."""

    def answers(deployment: str) -> list[Answer]:
        with api.again() as own:
            return [_answered(own, deployment, row) for row in rows]

    with ThreadPoolExecutor(len(deployments)) as pool:
        pending = {name: pool.submit(answers, identity) for name, identity in deployments.items()}
        return {name: future.result() for name, future in pending.items()}


def _answered(api: Api, deployment: str, row: dict[str, str]) -> Answer:
    return Answer(row["instruction"], row["output"], ask(api, deployment, row["instruction"]))


def rouge_l(api: Api, name: str, answers: Sequence[Answer]) -> float:
    """Mean ROUGE-L of answers, scored and kept by the eval service."""
    items = [{"reference": answer.reference, "answer": answer.text} for answer in answers]
    body: dict[str, Any] = {"name": name, "scorer": "SCORER_ROUGE_L", "items": items}
    return float(api.post("/api/v1/evaluations", body)["score"])
