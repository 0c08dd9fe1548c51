"""Groups: list, show, create, update, delete."""

from typing import Annotated, Any

import typer

from espalier_client.api import Api
from espalier_client.errors import InvalidInput
from espalier_client.lookup import group_id, user_id
from espalier_client.output import Output, OutputFormat, emit, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Groups of users.")

PATH = "/api/v1/groups"
Roles = Annotated[
    list[str] | None, typer.Option("--role", "-r", help="Role of the members; may be given several times.")
]
Members = Annotated[
    list[str] | None, typer.Option("--member", "-m", help="User name or id; may be given several times.")
]


@app.command("list")
def list_groups(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the groups, by name."""
    with open_api(server) as api:
        emit(list(api.all(PATH, "groups")), output, table=_table)


@app.command()
def show(group: str, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Show a group and its members."""
    with open_api(server) as api:
        found = api.get(f"{PATH}/{group_id(api, group)}")
        members = list(api.all("/api/v1/users", "users", group_id=found["id"])) if output is OutputFormat.TABLE else []
    emit(found, output, table=lambda each: _details(each, members))


@app.command()
def create(
    name: str,
    role: Roles = None,
    member: Members = None,
    description: str = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Create a group."""
    with open_api(server) as api:
        group = {"name": name, "roles": role or [], "description": description, "member_ids": _ids(api, member or [])}
        emit(api.post(PATH, group), output, table=lambda made: _table([made]))


@app.command()
def update(
    group: str,
    role: Roles = None,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="Take all roles from it.")] = False,
    add: Annotated[list[str] | None, typer.Option(help="User to take in; may be given several times.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="User to take out; may be given several times.")] = None,
    name: str | None = None,
    description: str | None = None,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Change a group. With --role, the group has those that are given and no others."""
    with open_api(server) as api:
        path = f"{PATH}/{group_id(api, group)}"
        roles = [] if no_roles else role
        wanted: dict[str, Any] = {"name": name, "description": description, "roles": roles}
        changed = {field: value for field, value in wanted.items() if value is not None}
        if add or remove:
            present = set(api.get(path)["member_ids"])
            changed["member_ids"] = sorted((present | set(_ids(api, add or []))) - set(_ids(api, remove or [])))
        if not changed:
            raise InvalidInput("Nothing to change: give --add, --remove, --role, --no-roles, --name or --description.")
        done = api.call("PATCH", path, changed, query={"update_mask": ",".join(changed)})
    emit(done, output, table=lambda made: _table([made]))


@app.command()
def delete(group: str, server: Server = "") -> None:
    """Delete a group; its members stay."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{group_id(api, group)}")
    note(f"{group} is deleted")


def _ids(api: Api, users: list[str]) -> list[str]:
    return [user_id(api, user) for user in users]


def _details(group: dict[str, Any], members: list[dict[str, Any]]) -> Any:
    rows = [
        ("group", group["name"]),
        ("id", group["id"]),
        ("for", group["description"]),
        ("roles", ", ".join(group["roles"])),
        ("members", ", ".join(user["username"] for user in members)),
    ]
    return table_of(("", ""), rows)


def _table(groups: list[dict[str, Any]]) -> Any:
    rows = [
        (group["id"], group["name"], ", ".join(group["roles"]), len(group["member_ids"]), group["description"])
        for group in groups
    ]
    return table_of(("ID", "GROUP", "ROLES", "MEMBERS", "FOR"), rows)
