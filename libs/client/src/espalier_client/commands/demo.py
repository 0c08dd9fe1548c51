"""The demo: the main job, end to end."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from espalier_client.api import Api
from espalier_client.commands.platform import sign_in_lines, start
from espalier_client.credentials import CredentialStore
from espalier_client.errors import Unauthenticated, UsageError
from espalier_client.output import note, stdout


def demo(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    base_model: Annotated[
        str | None, typer.Option(help="Start from this model of a hub, or model directory, instead of from scratch.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Do it anew although it was done here before.")] = False,
) -> None:
    """Start the platform and do the main job on it: train, stop, resume, register, deploy, chat.

    Done once, it is not done again: what was measured is shown once more, unless --again is given.
    """
    if device not in {"cpu", "cuda"}:
        raise UsageError(f"--device must be cpu or cuda, not {device!r}.")
    from espalier_client.demo.earlier import Earlier
    from espalier_client.demo.scenario import Demo, closing_lines
    from espalier_client.local.layout import default_layout

    began, setup = time.monotonic(), setup_seconds()
    home = default_layout().home
    started = start(allow(base_model))
    note(f"the platform answers at {started.gateway_url} after {started.seconds:.1f} s")
    earlier = Earlier(home / "demo", asked={"device": device, "base_model": base_model})
    with signed_in(started.gateway_url, default_layout().admin_password_file) as api:
        result = None if again else earlier.result(api)
        if result is None:
            played = Demo(api, home=home, device=device, base_model=base_model)
            played.seconds |= {"setup": setup, "start": started.seconds}
            result = played.play()
            result.seconds["total"] = setup + time.monotonic() - began
            earlier.keep(result)
        else:
            note(f"done here before, at {earlier.when()}; its runs are kept. --again does it anew")
    closing_lines(result, earlier.file)
    stdout().print(f"\n{sign_in_lines(started.gateway_url)}", markup=False)


def signed_in(server: str, password_file: Path) -> Api:
    """The API as whoever is signed in there already, else as the first administrator with his one-time password."""
    api = Api(server, store=CredentialStore.default())
    with contextlib.suppress(Unauthenticated):
        api.get("/api/v1/me")
        return api
    try:
        password = password_file.read_text("utf-8").strip()
        api.login("admin", password)
    except (OSError, Unauthenticated) as error:
        raise Unauthenticated(
            f"The demo needs somebody who is signed in, and the one-time password in {password_file} is no longer "
            f"good: run `espalier login --server {server}` first."
        ) from error
    return api


def allow(base_model: str | None) -> dict[str, str]:
    """The setting that lets runs start from a model directory: whoever starts the platform is its operator."""
    if base_model is None or not Path(base_model).is_dir():
        return {}
    return {"ESPALIER_MODEL_ROOTS": json.dumps([str(Path(base_model).resolve())])}


def setup_seconds() -> float:
    """How long the last set-up took, as scripts/setup.py wrote it down; 0 when this was installed otherwise."""
    try:
        return float((Path(sys.prefix) / "setup-seconds").read_text("utf-8"))
    except (OSError, ValueError):
        return 0.0
