"""Users: create, list."""

from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client.commands.sign_in import read_password
from espalier_client.output import Output, OutputFormat, age, emit, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Create and list users.")


@app.command()
def create(
    username: str,
    role: Annotated[list[str] | None, typer.Option("--role", "-r", help="Role; may be given several times.")] = None,
    display_name: Annotated[str, typer.Option(help="Name shown to others.")] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="File with the first password, 12 characters or more.")
    ] = None,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Create a user. The first password is asked for, or comes from --password-file or ESPALIER_NEW_PASSWORD."""
    with open_api(server) as api:
        word = read_password(password_file, "First password", variable="ESPALIER_NEW_PASSWORD", confirm=True)
        user = {"username": username, "display_name": display_name, "roles": role or []}
        emit(api.post("/api/v1/users", {"user": user, "password": word}), output, table=lambda made: _table([made]))


@app.command("list")
def list_users(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the users, by name."""
    with open_api(server) as api:
        emit(list(api.all("/api/v1/users", "users")), output, table=_table)


def _table(users: list[dict[str, Any]]) -> Any:
    rows = [
        (
            user["id"],
            user["username"],
            ", ".join(user["roles"]),
            "disabled" if user["disabled"] else "",
            age(user.get("last_login_time")),
        )
        for user in users
    ]
    return table_of(("ID", "USER", "ROLES", "", "LAST LOGIN"), rows)
