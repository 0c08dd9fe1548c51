"""One's own sessions: list, end, end-others."""

from typing import Annotated, Any

import typer

from espalier_client.output import Output, OutputFormat, age, emit, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Where you are signed in.")

PATH = "/api/v1/me/sessions"


@app.command("list")
def list_sessions(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List your sessions, the newest use first."""
    with open_api(server) as api:
        emit(api.get(PATH)["sessions"], output, table=_table)


@app.command()
def end(session: Annotated[str, typer.Argument(help="Id of the session.")], server: Server = "") -> None:
    """End one of your sessions; it is over everywhere within five seconds."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{session}")
    note("The session is ended.")


@app.command("end-others")
def end_others(server: Server = "") -> None:
    """End all your sessions but this one."""
    with open_api(server) as api:
        ended = api.post(f"{PATH}:endOthers", {})["ended"]
    note(f"Ended {ended} other session{'' if ended == 1 else 's'}.")


def _table(sessions: list[dict[str, Any]]) -> Any:
    rows = [
        (
            each["id"],
            each["device"],
            each["address"],
            age(each.get("create_time")),
            age(each.get("last_used_time")),
            "this one" if each["current"] else "",
        )
        for each in sessions
    ]
    return table_of(("ID", "DEVICE", "ADDRESS", "SIGNED IN", "LAST USED", ""), rows)
