"""Chat with a deployment: one message, or a conversation."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from espalier_client import lookup
from espalier_client.api import Api
from espalier_client.errors import ClientError
from espalier_client.output import note
from espalier_client.session import Server, open_api


def chat(
    deployment: Annotated[str, typer.Argument(help="Name or id.")],
    text: Annotated[str | None, typer.Argument(help="What to say; a conversation when left away.")] = None,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[float | None, typer.Option(min=0, max=5)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    server: Server = "",
) -> None:
    """Chat with a deployed model; answers stream. Ctrl-D ends a conversation."""
    parameters = {"temperature": temperature, "max_tokens": max_tokens}
    given = {name: value for name, value in parameters.items() if value is not None}
    with open_api(server) as api:
        session = open_session(api, lookup.deployment_id(api, deployment), system=system, parameters=given)
        for said in [text] if text is not None else _said():
            for delta in send(api, session, said):
                sys.stdout.write(delta["text"])
                sys.stdout.flush()
            sys.stdout.write("\n")


def open_session(api: Api, deployment: str, *, system: str = "", parameters: dict[str, Any] | None = None) -> str:
    """Opens a session with a deployment. Gives its id."""
    body = {"deployment_id": deployment, "system_prompt": system, "parameters": parameters or {}}
    return str(api.post("/api/v1/chat/sessions", body)["id"])


def send(api: Api, session: str, text: str) -> Iterator[dict[str, Any]]:
    """Sends a message and streams the pieces of the answer. Raises ClientError when the answer ends in an error."""
    for delta in api.stream(f"/api/v1/chat/sessions/{session}/messages", {"text": text}):
        yield delta
        message = delta.get("message")
        if message and message["state"] == "MESSAGE_STATE_FAILED":
            raise ClientError(f"The model could not answer: {message['error']}")


def _said() -> Iterator[str]:
    interactive = sys.stdin.isatty()
    if interactive:
        note("Ctrl-D ends the conversation.")
    while True:
        try:
            line = input("> ") if interactive else sys.stdin.readline()
        except EOFError:
            return
        if not line and not interactive:
            return
        if line.strip():
            yield line.rstrip("\n")
