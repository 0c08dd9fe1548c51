"""Which server a command talks to, and as whom."""

import json
import os
from typing import Annotated

import typer

from espalier_client.api import Api
from espalier_client.credentials import CredentialStore
from espalier_client.errors import ClientError

DEFAULT_SERVER = "http://127.0.0.1:8080"

Server = Annotated[
    str,
    typer.Option(
        "--server", envvar="ESPALIER_SERVER", help="Address of the platform; the one used last.", show_default=False
    ),
]


def open_api(server: str) -> Api:
    """The API of a server; ESPALIER_TOKEN (a token or an API key) goes before a session of `espalier login`."""
    store = CredentialStore.default()
    return Api(chosen_server(server, store), store=store, token=os.environ.get("ESPALIER_TOKEN", ""))


def chosen_server(server: str, store: CredentialStore) -> str:
    """The server that was named; else the one signed in to last; else the platform of this machine."""
    if server:
        return server if "://" in server else f"http://{server}"
    return store.last_server() or local_server() or DEFAULT_SERVER


def local_server() -> str | None:
    """Address of this machine's platform, if it was ever started."""
    from espalier_client.local.layout import default_layout

    try:
        ports = json.loads((default_layout().run / "ports.json").read_text("utf-8"))
        return f"http://127.0.0.1:{int(ports['gateway'])}"
    except (ClientError, OSError, ValueError, KeyError):
        return None
