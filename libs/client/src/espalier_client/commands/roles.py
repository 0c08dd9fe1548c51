"""Roles: list, show, create, update, delete; and the permissions that there are."""

from typing import Annotated, Any

import typer

from espalier_client.errors import InvalidInput, NotFound
from espalier_client.output import Output, OutputFormat, emit, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Roles, and the permissions that they are made of.")

PATH = "/api/v1/roles"
Permissions = Annotated[
    list[str] | None, typer.Option("--permission", "-p", help="Permission; may be given several times.")
]
Scope = Annotated[str, typer.Option(help="Whose data it reaches: own, group or all.")]


@app.command("list")
def list_roles(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the roles."""
    with open_api(server) as api:
        emit(api.get(PATH)["roles"], output, table=_table)


@app.command()
def show(name: str, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Show the permissions of a role."""
    with open_api(server) as api:
        found = [role for role in api.get(PATH)["roles"] if role["name"] == name]
    if not found:
        raise NotFound(f"There is no role {name!r}. `espalier roles list` shows those that are there.")
    emit(found[0], output, table=lambda role: "\n".join(role["permissions"]))


@app.command()
def permissions(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the permissions that a role may have, with what each allows."""
    with open_api(server) as api:
        emit(
            api.get("/api/v1/permissions")["permissions"],
            output,
            table=lambda found: table_of(
                ("PERMISSION", "ALLOWS"), [(item["name"], item["description"]) for item in found]
            ),
        )


@app.command()
def create(
    name: str,
    permission: Permissions = None,
    scope: Scope = "own",
    description: str = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Create a role."""
    role = {"name": name, "permissions": permission or [], "scope": scope, "description": description}
    with open_api(server) as api:
        emit(api.post(PATH, role), output, table=lambda made: _table([made]))


@app.command()
def update(
    name: str,
    permission: Permissions = None,
    scope: Scope = "",
    description: str | None = None,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Change a role. With --permission, the role has those that are given and no others."""
    role = {"permissions": permission, "scope": scope or None, "description": description}
    changed = {field: value for field, value in role.items() if value is not None}
    if not changed:
        raise InvalidInput("Nothing to change: give --permission, --scope or --description.")
    with open_api(server) as api:
        done = api.call("PATCH", f"{PATH}/{name}", changed, query={"update_mask": ",".join(changed)})
    emit(done, output, table=lambda made: _table([made]))


@app.command()
def delete(name: str, server: Server = "") -> None:
    """Delete a role that nobody has."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{name}")
    note(f"{name} is deleted")


def _table(roles: list[dict[str, Any]]) -> Any:
    rows = [
        (
            role["name"],
            role["scope"],
            "all" if role["permissions"] == ["*"] else len(role["permissions"]),
            "built in" if role["built_in"] else "",
            role["description"],
        )
        for role in roles
    ]
    return table_of(("ROLE", "REACHES", "PERMISSIONS", "", "FOR"), rows)
