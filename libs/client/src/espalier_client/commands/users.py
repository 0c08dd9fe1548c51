"""Users: create, list, show, update, disable, enable, reset-password, remove-second-factor, end-sessions, explain."""

from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client.api import Api
from espalier_client.commands.sign_in import read_password
from espalier_client.errors import InvalidInput
from espalier_client.lookup import group_id, group_names, user_id
from espalier_client.output import Output, OutputFormat, age, emit, moment, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Create, change and list users, and tell what they may do.")

PATH = "/api/v1/users"
Who = Annotated[str, typer.Argument(metavar="USER", help="Username or id.")]
Roles = Annotated[list[str] | None, typer.Option("--role", "-r", help="Role; may be given several times.")]


@app.command()
def create(
    username: str,
    role: Roles = None,
    display_name: Annotated[str, typer.Option(help="Name shown to others.")] = "",
    email: Annotated[str, typer.Option(help="E-mail address.")] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="File with the first password, 12 characters or more.")
    ] = None,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Create a user. The first password is asked for, or comes from --password-file or ESPALIER_NEW_PASSWORD."""
    with open_api(server) as api:
        word = read_password(password_file, "First password", variable="ESPALIER_NEW_PASSWORD", confirm=True)
        user = {"username": username, "display_name": display_name, "roles": role or [], "email": email}
        emit(api.post(PATH, {"user": user, "password": word}), output, table=lambda made: _table([made]))


@app.command("list")
def list_users(
    query: Annotated[str, typer.Option("--query", "-q", help="Only with this in a name or the address.")] = "",
    role: Annotated[str, typer.Option("--role", "-r", help="Only who has this role, himself or by a group.")] = "",
    group: Annotated[str, typer.Option("--group", "-g", help="Only members of this group: name or id.")] = "",
    disabled: Annotated[bool | None, typer.Option("--disabled/--enabled", help="Only those who are, or not.")] = None,
    second_factor: Annotated[
        bool | None, typer.Option("--second-factor/--no-second-factor", help="Only who has enrolled one, or has not.")
    ] = None,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """List the users, by name."""
    with open_api(server) as api:
        wanted: dict[str, Any] = {
            "query": query or None,
            "role": role or None,
            "group_id": group_id(api, group) if group else None,
            "disabled": None if disabled is None else str(disabled).lower(),
            "second_factor_enrolled": None if second_factor is None else str(second_factor).lower(),
        }
        emit(list(api.all(PATH, "users", **wanted)), output, table=_table)


@app.command()
def show(user: Who, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Show one user."""
    with open_api(server) as api:
        found = api.get(f"{PATH}/{user_id(api, user)}")
        groups = group_names(api) if found["group_ids"] and output is OutputFormat.TABLE else {}
    emit(found, output, table=lambda shown: _details(shown, groups))


@app.command()
def update(
    user: Who,
    role: Roles = None,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="Take all roles from him.")] = False,
    display_name: Annotated[str | None, typer.Option(help="Name shown to others.")] = None,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Change a user. With --role, he has those that are given and no others; in force within five seconds."""
    wanted = {"roles": [] if no_roles else role, "display_name": display_name}
    changed = {field: value for field, value in wanted.items() if value is not None}
    if not changed:
        raise InvalidInput("Nothing to change: give --role, --no-roles or --display-name.")
    with open_api(server) as api:
        emit(_change(api, user, changed), output, table=lambda made: _table([made]))


@app.command()
def disable(user: Who, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Shut a user out, everywhere within five seconds; what is his stays."""
    with open_api(server) as api:
        emit(_change(api, user, {"disabled": True}), output, table=lambda made: _table([made]))


@app.command()
def enable(user: Who, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Let a disabled user in again."""
    with open_api(server) as api:
        emit(_change(api, user, {"disabled": False}), output, table=lambda made: _table([made]))


@app.command("reset-password")
def reset_password(user: Who, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Make a link with which a user chooses a new password, once. It is shown now and never again."""
    with open_api(server) as api:
        made = api.post(f"{PATH}/{user_id(api, user)}:resetPassword", {})
    emit(made, output, table=lambda link: str(link["url"]))
    note(f"Hand it over by a safe way; it works until {made['expire_time']}.")


@app.command("remove-second-factor")
def remove_second_factor(user: Who, server: Server = "") -> None:
    """Remove the second factor of a user who lost it, and end his sessions; his password alone signs in then."""
    with open_api(server) as api:
        api.post(f"{PATH}/{user_id(api, user)}:removeSecondFactor", {})
    note(f"The second factor of {user} is removed, and his sessions are ended.")


@app.command("end-sessions")
def end_sessions(user: Who, server: Server = "") -> None:
    """End all sessions of a user, who may sign in again."""
    with open_api(server) as api:
        ended = api.post(f"{PATH}/{user_id(api, user)}:endSessions", {})["ended"]
    note(f"Ended {ended} session{'' if ended == 1 else 's'} of {user}.")


@app.command()
def explain(
    user: Who,
    permission: Annotated[str, typer.Option("--permission", "-p", help="Only this permission.")] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Tell what a user may do, and which of his roles and groups it comes from."""
    with open_api(server) as api:
        path = f"{PATH}/{user_id(api, user)}/permissions"
        found = api.get(path, permission=permission or None)["permissions"]
    # A table of what he may do; one permission that was asked for is told also when he has it not.
    shown = found if permission else [item for item in found if item["allowed"]]
    emit(found, output, table=lambda _: _explained(shown))


def _change(api: Api, user: str, changed: dict[str, Any]) -> Any:
    return api.call("PATCH", f"{PATH}/{user_id(api, user)}", changed, query={"update_mask": ",".join(changed)})


def _details(user: dict[str, Any], groups: dict[str, str]) -> Any:
    rows = [
        ("user", user["username"]),
        ("id", user["id"]),
        ("name", user["display_name"]),
        ("address", user["email"]),
        ("roles", ", ".join(user["roles"])),
        ("groups", ", ".join(groups.get(each, each) for each in user["group_ids"])),
        ("signs in", f"at {user['identity_provider']}" if user["identity_provider"] else "with a password"),
        ("second factor", "yes" if user.get("second_factor_enrolled") else "no"),
        ("state", "disabled" if user["disabled"] else "enabled"),
        ("created", moment(user.get("create_time"))),
        ("last login", moment(user.get("last_login_time")) or "never"),
    ]
    return table_of(("", ""), rows)


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
            "yes" if user.get("second_factor_enrolled") else "",
            age(user.get("last_login_time")),
        )
        for user in users
    ]
    return table_of(("ID", "USER", "ROLES", "", "2ND FACTOR", "LAST LOGIN"), rows)
