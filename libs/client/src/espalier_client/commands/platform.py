"""The platform of this machine: up, down, status."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espalier_client.errors import PlatformError
from espalier_client.output import Output, OutputFormat, bytes_text, duration, emit, note, stdout, table_of

if TYPE_CHECKING:
    from espalier_client.local.platform import Started


def up() -> None:
    """Start the platform on this machine; what runs already is left alone."""
    started = start()
    what = ", ".join(started.names) if started.names else "nothing: everything ran already"
    note(f"started in {started.seconds:.1f} s: {what}")
    stdout().print(f"{sign_in_lines(started.gateway_url)}", markup=False)


def down(
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Leave training runs running; `espalier up` finds them again.")
    ] = False,
) -> None:
    """Stop the platform. Trainings save and end first; all data stays."""
    from espalier_client.local import platform
    from espalier_client.local.layout import default_layout

    stopped = platform.down(default_layout(), keep_runs=keep_runs, report=note)
    for run in stopped.runs:
        note(f"run {run.run_id}: {run.message}")
    for run_id in stopped.kept_runs:
        note(f"run {run_id} goes on training")
    note(f"stopped: {', '.join(stopped.names)}" if stopped.names else "nothing ran")


def status(output: Output = OutputFormat.TABLE) -> None:
    """Say what runs. Exit code 1 when a part of the platform does not."""
    from espalier_client.local import platform
    from espalier_client.local.layout import default_layout

    layout = default_layout()
    found = platform.status(layout)
    emit([asdict(item) for item in found], output, table=_table)
    dead = [item.name for item in found if not item.running]
    if len(dead) == len(found):
        raise PlatformError(f"The platform of {layout.home} does not run; `espalier up` starts it.")
    if dead:
        raise PlatformError(f"Not running: {', '.join(dead)}. `espalier up` starts them again.")


def remove_second_factor(
    username: Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")],
) -> None:
    """Let a user of this machine's platform in with his password alone: for an administrator whom no other can help."""
    from espalier_client.local import platform
    from espalier_client.local.layout import default_layout

    words = ["remove-second-factor", username]
    platform.run_command(default_layout(), "auth", words, environment=os.environ)
    note(f"The second factor of {username} is removed, and all his sessions are ended.")


def reset_password(
    username: Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")],
) -> None:
    """Print a link with which a user of this machine's platform chooses a new password: for an administrator whom no
    other can help. It works once, within 24 hours.
    """
    from espalier_client.local import platform
    from espalier_client.local.layout import default_layout

    words = ["reset-password", username]
    link = platform.run_command(default_layout(), "auth", words, environment=os.environ)
    stdout().print(link.strip(), markup=False, soft_wrap=True)


def start(more: Mapping[str, str] | None = None) -> "Started":
    """Starts the platform of this machine, telling what happens; `more` goes over the environment."""
    from espalier_client.local import platform
    from espalier_client.local.layout import default_layout

    return platform.up(default_layout(), environment={**os.environ, **(more or {})}, report=note)


def sign_in_lines(url: str) -> str:
    """Where the console is and who signs in with what."""
    from espalier_client.local.layout import default_layout

    file = default_layout().admin_password_file
    try:
        password = file.read_text("utf-8").strip()
    except OSError:
        return f"console   {url}"
    return f"console   {url}\nuser      admin\npassword  {password}   (one-time, also in {file})"


def _table(found: list[dict[str, Any]]) -> Any:
    rows = [
        (
            item["name"],
            "running" if item["running"] else "not running",
            item["pid"],
            item["port"],
            duration(item["uptime"]) if item["running"] else "",
            bytes_text(item["memory"]) if item["memory"] else "",
        )
        for item in found
    ]
    return table_of(("PROCESS", "STATE", "PID", "PORT", "UPTIME", "MEMORY"), rows)
