"""Invitations: create, list, delete."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from espalier_client.lookup import group_id
from espalier_client.output import Output, OutputFormat, emit, moment, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Invite people to register.")

PATH = "/api/v1/invitations"


@app.command()
def create(
    email: Annotated[str, typer.Option(help="Only for who has this address; for anybody with the link if empty.")] = "",
    role: Annotated[list[str] | None, typer.Option("--role", "-r", help="Role that he gets; several times.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Group that he joins; several times.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=90, help="Days for which it works.")] = 7,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Make a link with which one person registers. It is shown now and never again."""
    with open_api(server) as api:
        invitation = {
            "email": email,
            "roles": role or [],
            "group_ids": [group_id(api, each) for each in group or []],
            "expire_time": (datetime.now(UTC) + timedelta(days=days)).isoformat(),
        }
        emit(api.post(PATH, invitation), output, table=lambda made: str(made["url"]))
    note("Hand the link over now: it is not shown again.")


@app.command("list")
def list_invitations(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the invitations that are open, newest first."""
    with open_api(server) as api:
        emit(list(api.all(PATH, "invitations")), output, table=_table)


@app.command()
def delete(invitation: Annotated[str, typer.Argument(help="Id of the invitation.")], server: Server = "") -> None:
    """Take an invitation back."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{invitation}")
    note("The invitation is taken back.")


def _table(invitations: list[dict[str, Any]]) -> Any:
    rows = [
        (
            each["id"],
            each["email"] or "anybody",
            ", ".join(each["roles"]),
            len(each["group_ids"]),
            moment(each.get("expire_time")),
        )
        for each in invitations
    ]
    return table_of(("ID", "FOR", "ROLES", "GROUPS", "WORKS UNTIL"), rows)
