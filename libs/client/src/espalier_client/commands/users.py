"""Users: create, list, explain."""

from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client.commands.sign_in import read_password
from espalier_client.lookup import user_id
from espalier_client.output import Output, OutputFormat, age, emit, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Create and list users, and tell what they may do.")


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


@app.command()
def explain(
    user: str,
    permission: Annotated[str, typer.Option("--permission", "-p", help="Only this permission.")] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Tell what a user may do, and which of his roles and groups it comes from."""
    with open_api(server) as api:
        path = f"/api/v1/users/{user_id(api, user)}/permissions"
        found = api.get(path, permission=permission or None)["permissions"]
    # A table of what he may do; one permission that was asked for is told also when he has it not.
    shown = found if permission else [item for item in found if item["allowed"]]
    emit(found, output, table=lambda _: _explained(shown))


def _explained(found: list[dict[str, Any]]) -> Any:
    rows = [
        (item["permission"], item["scope"] if item["allowed"] else "no", ", ".join(item["sources"])) for item in found
    ]
    return table_of(("PERMISSION", "REACHES", "FROM"), rows)


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
